// How inputs become integers, and where those of several tokens lie: the same at every level of instructions.
#pragma once

#include "native.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// The largest magnitude of `count` numbers; NaN when one of them is NaN or infinite.
inline float largest(const float* from, int64_t count) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  __m256 top = _mm256_setzero_ps(), poison = _mm256_setzero_ps();
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 x = _mm256_loadu_ps(from + i);
    top = _mm256_max_ps(top, _mm256_and_ps(x, no_sign));
    poison = _mm256_fmadd_ps(x, _mm256_setzero_ps(), poison);
  }
  float lanes[8], result = 0.0f, bad = qtool::sum_lanes(poison);
  _mm256_storeu_ps(lanes, top);
  for (float lane : lanes) result = std::max(result, lane);
  for (; i < count; i++) {
    result = std::max(result, std::fabs(from[i]));
    bad += from[i] * 0.0f;
  }
  return bad == 0.0f ? result : NAN;
}

inline void to_integers(const float* from, int64_t count, int16_t* to, float scale, bool divide, int low, int high,
                        int zero) {
  const float factor = divide ? scale : 1.0f / scale;
  const __m256 f = _mm256_set1_ps(factor);
  const __m256i lo = _mm256_set1_epi32(low), hi = _mm256_set1_epi32(high), z = _mm256_set1_epi32(zero);
  float padded[8];
  for (int64_t i = 0; i < count; i += 8) {
    const float* source = from + i;
    if (i + 8 > count) {
      std::memset(padded, 0, sizeof padded);
      std::memcpy(padded, source, (count - i) * sizeof(float));
      source = padded;
    }
    const __m256 x = _mm256_loadu_ps(source);
    __m256i v = _mm256_cvtps_epi32(divide ? _mm256_div_ps(x, f) : _mm256_mul_ps(x, f));
    v = _mm256_sub_epi32(_mm256_min_epi32(_mm256_max_epi32(_mm256_add_epi32(v, z), lo), hi), z);
    const __m128i narrow = _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), narrow);  // `to` has room for a multiple of 16
  }
}

// How one token's inputs become 8-bit codes, by its largest or by a stored scale.
struct Range8 {
  float top, scale;
  int zero;
  Range8(const qtool::Product& p, const float* x) : top(largest(x, p.columns)), zero(p.input_zero) {
    scale = p.input_scale > 0.0f ? p.input_scale : std::max(top, 1e-12f) * static_cast<float>(2.0 / 255.0);
    if (top != top) scale = NAN;
  }
  // Codes less their zero point of `count` numbers, at most sixteen; the rest of the sixteen are 0.
  void codes(const float* x, int64_t count, int16_t* group) const {
    std::memset(group, 0, 16 * sizeof *group);
    if (count > 0 && top / scale < 1e9f) {
      to_integers(x, count, group, scale, true, -128, 127, zero);
      for (int64_t c = count; c < 16; c++) group[c] = 0;
    } else if (scale == scale) {  // far beyond a stored scale: to be cut, where a conversion to int would wrap
      for (int64_t c = 0; c < count; c++) {
        const float v = std::nearbyint(x[c] / scale) + static_cast<float>(zero);
        group[c] = static_cast<int16_t>(std::min(std::max(v, -128.0f), 127.0f)) - static_cast<int16_t>(zero);
      }
    }
  }
};

// Where a token's inputs lie: those of MOST tokens together, vector by vector, so that one pointer walks through all.
template <int MOST>
struct Places {
  int64_t first;     // of those together
  int64_t together;  // how many of them there are
  int64_t own;       // which of them this is
  Places(int64_t token, int64_t tokens)
      : first(token / MOST * MOST), together(std::min<int64_t>(MOST, tokens - first)), own(token - first) {}
  // Index of the first of `width` elements, those of vector `i` of this token; a token has `length` elements.
  int64_t at(int64_t i, int64_t width, int64_t length) const {
    return first * length + (i * together + own) * width;
  }
};

}  // namespace
