// SPDX-License-Identifier: Apache-2.0
//
// Decodes bmp_msgs/msg/Mask: run lengths inside a rectangle, column by column, background first.
// Header-only, C++14, standard library only; the overloads that return a cv::Mat are there where
// OpenCV's headers are.
//
//   #include <bmp_msgs/mask_decoder.hpp>
//
//   // person: bmp_msgs::msg::Person; the crop of the image that mask.x_offset ... height name:
//   std::vector<uint8_t> crop(size_t{person.mask.width} * person.mask.height);
//   bmp_msgs::decode_mask(person.mask, crop.data());
//   // with OpenCV, in the size of the image:
//   cv::Mat mask = bmp_msgs::decode_mask(person.mask, people.height, people.width);

#ifndef BMP_MSGS__MASK_DECODER_HPP_
#define BMP_MSGS__MASK_DECODER_HPP_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#ifdef __has_include
#if __has_include(<opencv2/core/mat.hpp>)
#include <opencv2/core/mat.hpp>
#define BMP_MSGS__MASK_DECODER_HAS_OPENCV 1
#endif
#endif

namespace bmp_msgs
{

namespace detail
{

/// Throw std::invalid_argument unless the runs fill the rectangle and the rows do not overlap.
inline void check_runs(
  const std::uint32_t * counts, std::size_t number_of_counts,
  std::uint32_t width, std::uint32_t height, std::size_t step)
{
  if (step < width) {
    throw std::invalid_argument(
            "step must be at least the width " + std::to_string(width) + ", got " +
            std::to_string(step));
  }
  std::uint64_t sum = 0;
  for (std::size_t i = 0; i < number_of_counts; ++i) {
    sum += counts[i];
  }
  const std::uint64_t area = std::uint64_t{width} * height;
  if (sum != area && number_of_counts != 0) {
    throw std::invalid_argument(
            "run lengths must sum to width*height = " + std::to_string(width) + "*" +
            std::to_string(height) + " = " + std::to_string(area) + ", got " +
            std::to_string(number_of_counts) + " runs that sum to " + std::to_string(sum));
  }
}

}  // namespace detail

/// Paint the person into the caller's buffer; pixels of the background stay as they are.
/**
 * \param counts lengths of alternating background and person runs; no runs at all paint nothing
 * \param number_of_counts length of `counts`
 * \param width,height of the rectangle, pixels
 * \param pixels the rectangle's first pixel; `height` rows of `width` pixels
 * \param step bytes from the start of one row to the start of the next, >= width
 * \param value what the pixels of the person become
 * \throws std::invalid_argument when the runs do not fill the rectangle exactly, before a pixel
 *   is written: a corrupt message never writes outside of the buffer
 */
inline void paint_runs(
  const std::uint32_t * counts, std::size_t number_of_counts,
  std::uint32_t width, std::uint32_t height,
  std::uint8_t * pixels, std::size_t step, std::uint8_t value = 255)
{
  detail::check_runs(counts, number_of_counts, width, height, step);
  std::uint32_t column = 0;
  std::uint32_t row = 0;
  for (std::size_t i = 0; i < number_of_counts; ++i) {
    const bool person = i % 2 == 1;
    std::uint32_t left = counts[i];
    while (left > 0) {  // a run may go on in the next columns
      const std::uint32_t here = left < height - row ? left : height - row;
      if (person) {
        std::uint8_t * pixel = pixels + row * step + column;
        for (std::uint32_t k = 0; k < here; ++k, pixel += step) {
          *pixel = value;
        }
      }
      left -= here;
      row += here;
      if (row == height) {
        row = 0;
        ++column;
      }
    }
  }
}

/// Decode run lengths into the caller's buffer: `value` on the person, 0 on the background.
/**
 * Parameters and exception as in `paint_runs`.
 */
inline void decode_runs(
  const std::uint32_t * counts, std::size_t number_of_counts,
  std::uint32_t width, std::uint32_t height,
  std::uint8_t * pixels, std::size_t step, std::uint8_t value = 255)
{
  detail::check_runs(counts, number_of_counts, width, height, step);
  for (std::uint32_t row = 0; row < height; ++row) {
    std::fill_n(pixels + row * step, width, std::uint8_t{0});
  }
  paint_runs(counts, number_of_counts, width, height, pixels, step, value);
}

/// Number of pixels of the person. `MaskMessage` is bmp_msgs::msg::Mask.
template<class MaskMessage>
std::uint64_t mask_area(const MaskMessage & mask)
{
  std::uint64_t area = 0;
  for (std::size_t i = 1; i < mask.counts.size(); i += 2) {
    area += mask.counts[i];
  }
  return area;
}

/// Decode a mask into a buffer of mask.height rows of mask.width pixels, without gaps.
/**
 * \throws std::invalid_argument as `decode_runs`
 */
template<class MaskMessage>
void decode_mask(const MaskMessage & mask, std::uint8_t * pixels, std::uint8_t value = 255)
{
  decode_runs(
    mask.counts.data(), mask.counts.size(), mask.width, mask.height, pixels, mask.width, value);
}

/// Paint a person into a buffer of the whole image, image_height x image_width pixels.
/**
 * Pixels that are not the person's stay as they are: several people make a label image.
 * \param step bytes from the start of one row of the image to the start of the next
 * \throws std::invalid_argument as `paint_runs`, and when the rectangle leaves the image
 */
template<class MaskMessage>
void paint_mask(
  const MaskMessage & mask, std::uint32_t image_height, std::uint32_t image_width,
  std::uint8_t * pixels, std::size_t step, std::uint8_t value = 255)
{
  if (std::uint64_t{mask.x_offset} + mask.width > image_width ||
    std::uint64_t{mask.y_offset} + mask.height > image_height)
  {
    throw std::invalid_argument(
            "the mask's rectangle x=" + std::to_string(mask.x_offset) + " y=" +
            std::to_string(mask.y_offset) + " width=" + std::to_string(mask.width) + " height=" +
            std::to_string(mask.height) + " leaves the image of " + std::to_string(image_width) +
            "x" + std::to_string(image_height) + " pixels");
  }
  paint_runs(
    mask.counts.data(), mask.counts.size(), mask.width, mask.height,
    pixels + mask.y_offset * step + mask.x_offset, step, value);
}

#ifdef BMP_MSGS__MASK_DECODER_HAS_OPENCV

/// Decode a mask into a new CV_8UC1 image of its rectangle: 255 on the person, else 0.
template<class MaskMessage>
cv::Mat decode_mask(const MaskMessage & mask)
{
  cv::Mat crop(static_cast<int>(mask.height), static_cast<int>(mask.width), CV_8UC1);
  decode_runs(
    mask.counts.data(), mask.counts.size(), mask.width, mask.height,
    crop.data, crop.step);
  return crop;
}

/// Decode a mask into a new CV_8UC1 image of the whole image's size: 255 on the person, else 0.
template<class MaskMessage>
cv::Mat decode_mask(
  const MaskMessage & mask, std::uint32_t image_height, std::uint32_t image_width)
{
  cv::Mat image =
    cv::Mat::zeros(static_cast<int>(image_height), static_cast<int>(image_width), CV_8UC1);
  paint_mask(mask, image_height, image_width, image.data, image.step);
  return image;
}

#endif  // BMP_MSGS__MASK_DECODER_HAS_OPENCV

}  // namespace bmp_msgs

#endif  // BMP_MSGS__MASK_DECODER_HPP_
