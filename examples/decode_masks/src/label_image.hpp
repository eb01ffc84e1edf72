// SPDX-License-Identifier: Apache-2.0
//
// From a message to pixels: needs bmp_msgs/mask_decoder.hpp and the standard library, no ROS.

#ifndef LABEL_IMAGE_HPP_
#define LABEL_IMAGE_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "bmp_msgs/mask_decoder.hpp"

/// Decode all people into one image: 0 = background, i = people[i - 1].
/**
 * \param message a bmp_msgs::msg::PersonArray
 * \return message.height rows of message.width pixels; from the 255th person on all are 255
 * \throws std::invalid_argument when a mask contradicts its own sizes or leaves the image
 */
template<class PersonArray>
std::vector<std::uint8_t> label_image(const PersonArray & message)
{
  std::vector<std::uint8_t> labels(std::size_t{message.height} * message.width, 0);
  std::size_t number = 0;
  for (const auto & person : message.people) {
    ++number;
    bmp_msgs::paint_mask(
      person.mask, message.height, message.width, labels.data(), message.width,
      static_cast<std::uint8_t>(std::min<std::size_t>(number, 255)));
  }
  return labels;
}

#endif  // LABEL_IMAGE_HPP_
