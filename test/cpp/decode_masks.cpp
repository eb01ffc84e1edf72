// SPDX-License-Identifier: Apache-2.0
//
// Decodes the masks that arrive on stdin with bmp_msgs/mask_decoder.hpp, until stdin ends.
// Request (uint32): image_height image_width x_offset y_offset width height n counts[n].
// Answer: uint8 0, uint64 area, uint8 crop[height*width], uint8 image[image_height*image_width];
// or uint8 1, uint32 length, the text of the exception.

#include <array>
#include <cstdint>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#ifdef WITH_ROS_MESSAGE
#include "bmp_msgs/msg/mask.hpp"
using Mask = bmp_msgs::msg::Mask;
#else
struct Mask
{
  std::uint32_t x_offset, y_offset, width, height;
  std::vector<std::uint32_t> counts;
};
#endif

#include "bmp_msgs/mask_decoder.hpp"

template<class T>
void write(const T * values, std::size_t count)
{
  std::cout.write(
    reinterpret_cast<const char *>(values), static_cast<std::streamsize>(count * sizeof(T)));
}

template<class T>
bool read(T * values, std::size_t count)
{
  const auto bytes = static_cast<std::streamsize>(count * sizeof(T));
  return bytes == 0 || std::cin.read(reinterpret_cast<char *>(values), bytes).gcount() == bytes;
}

#ifdef WITH_OPENCV
#include <opencv2/core.hpp>

void check_opencv(
  const Mask & mask, std::vector<std::uint8_t> & crop, std::vector<std::uint8_t> & image,
  std::uint32_t image_height, std::uint32_t image_width)
{
  const cv::Mat crop_255 = bmp_msgs::decode_mask(mask);
  const cv::Mat image_255 = bmp_msgs::decode_mask(mask, image_height, image_width);
  const cv::Mat crop_1(crop_255.rows, crop_255.cols, CV_8UC1, crop.data());
  const cv::Mat image_1(image_255.rows, image_255.cols, CV_8UC1, image.data());
  if ((!crop_1.empty() && cv::countNonZero(crop_255 != 255 * crop_1) > 0) ||
    cv::countNonZero((image_255 == 255) != (image_1 == 1)) > 0 ||
    crop_255.total() != crop.size() || image_255.total() != image.size())
  {
    throw std::logic_error("the overloads with cv::Mat differ");  // ends the process
  }
}
#endif

int main()
{
  std::array<std::uint32_t, 7> sizes;
  while (read(sizes.data(), sizes.size())) {
    const std::uint32_t image_height = sizes[0], image_width = sizes[1];
    Mask mask;
    mask.x_offset = sizes[2];
    mask.y_offset = sizes[3];
    mask.width = sizes[4];
    mask.height = sizes[5];
    mask.counts.resize(sizes[6]);
    if (!read(mask.counts.data(), mask.counts.size())) {
      return 1;
    }
    try {
      // Filled with 7, so that a pixel that is not written shows.
      std::vector<std::uint8_t> crop(std::size_t{mask.width} * mask.height, 7);
      std::vector<std::uint8_t> image(std::size_t{image_width} * image_height, 7);
      bmp_msgs::decode_mask(mask, crop.data(), 1);
      bmp_msgs::paint_mask(mask, image_height, image_width, image.data(), image_width, 1);
      const std::uint64_t area = bmp_msgs::mask_area(mask);
#ifdef WITH_OPENCV
      check_opencv(mask, crop, image, image_height, image_width);
#endif
      const std::uint8_t good = 0;
      write(&good, 1);
      write(&area, 1);
      write(crop.data(), crop.size());
      write(image.data(), image.size());
    } catch (const std::invalid_argument & error) {
      const std::string text = error.what();
      const std::uint8_t bad = 1;
      const auto length = static_cast<std::uint32_t>(text.size());
      write(&bad, 1);
      write(&length, 1);
      write(text.data(), text.size());
    }
    std::cout.flush();
  }
  return 0;
}
