// SPDX-License-Identifier: Apache-2.0
//
// Runs the decoding part of examples/decode_masks on a message from stdin and writes the labels.
// Request (uint32): height width n, then per person: x_offset y_offset width height m counts[m].

#include <cstdint>
#include <iostream>

#ifdef WITH_ROS_MESSAGE
#include "bmp_msgs/msg/person_array.hpp"
using PersonArray = bmp_msgs::msg::PersonArray;
#else
#include <vector>
struct Mask
{
  std::uint32_t x_offset, y_offset, width, height;
  std::vector<std::uint32_t> counts;
};
struct Person
{
  Mask mask;
};
struct PersonArray
{
  std::uint32_t height, width;
  std::vector<Person> people;
};
#endif

#include "label_image.hpp"

std::uint32_t number()
{
  std::uint32_t value = 0;
  std::cin.read(reinterpret_cast<char *>(&value), sizeof(value));
  return value;
}

int main()
{
  PersonArray message;
  message.height = number();
  message.width = number();
  message.people.resize(number());
  for (auto & person : message.people) {
    person.mask.x_offset = number();
    person.mask.y_offset = number();
    person.mask.width = number();
    person.mask.height = number();
    person.mask.counts.resize(number());
    for (auto & count : person.mask.counts) {
      count = number();
    }
  }
  const auto labels = label_image(message);
  std::cout.write(
    reinterpret_cast<const char *>(labels.data()), static_cast<std::streamsize>(labels.size()));
  return std::cin.good() ? 0 : 1;
}
