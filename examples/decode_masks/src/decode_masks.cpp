// SPDX-License-Identifier: Apache-2.0
//
// Subscribes to /bmp/poses, decodes the masks and says how many pixels people cover.
// For one person as a cv::Mat, where OpenCV's headers are installed:
//   cv::Mat mask = bmp_msgs::decode_mask(person.mask, message.height, message.width);

#include <algorithm>
#include <cstddef>
#include <memory>
#include <stdexcept>

#include "bmp_msgs/msg/person_array.hpp"
#include "label_image.hpp"
#include "rclcpp/rclcpp.hpp"

using bmp_msgs::msg::PersonArray;

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  auto node = std::make_shared<rclcpp::Node>("decode_masks");
  auto decode = [&node](const PersonArray::ConstSharedPtr message) {
      try {
        const auto labels = label_image(*message);
        const auto background = std::count(labels.begin(), labels.end(), 0);
        RCLCPP_INFO(
          node->get_logger(), "%zu people cover %zu of %zu pixels", message->people.size(),
          labels.size() - static_cast<std::size_t>(background), labels.size());
      } catch (const std::invalid_argument & error) {
        RCLCPP_WARN(node->get_logger(), "not decoded: %s", error.what());
      }
    };
  auto subscription = node->create_subscription<PersonArray>("/bmp/poses", 5, decode);
  rclcpp::spin(node);
  rclcpp::shutdown();
  return 0;
}
