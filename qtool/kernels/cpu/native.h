// What the compiled sources share. One library is built for each level of instructions, and linked to the OpenMP that
// torch uses; what is defined here is `static`, so that no source uses another's instructions.
#pragma once

#include <immintrin.h>
#include <omp.h>

#include <cstdint>
#include <cstring>
#include <initializer_list>

namespace qtool {

// A stored weight [rows, columns] and the inputs it is multiplied with.
struct Product {
  const float* inputs;      // [tokens, columns]
  int64_t tokens, columns;  // columns of the inputs; weights are padded to a multiple of step
  const uint8_t* codes;     // [rows, padded * bits / 8]
  const float* scales;      // [rows, groups], or [rows] when per_row
  const int32_t* zeros;     // [rows, groups] or null: what a stored number is above zero
  const int16_t* book;      // [16] or null: the numbers that 4-bit codes stand for
  int64_t rows, padded;
  int32_t per_row, threads;
  float input_scale;   // 8-bit inputs: 0 means by token
  int32_t input_zero;  // 8-bit inputs: what is added before rounding is cut to -128..127
  float* output;       // [tokens, rows] in rows of `stride`
  int64_t stride;
  void* scratch;
};

// The product, by all threads of the team that calls it; they leave together. 1 when there is no such product.
int multiply_by_team(const Product& p, int kind, int step);
int multiply_avx2(const Product& p, int kind, int step);
int multiply_avx512(const Product& p, int kind, int step);

// Panels first..last-1 of a weight as a matrix with a row for each column of the weight, `stride` numbers a row: int8
// codes where its inputs are 8-bit, else bfloat16 numbers. 1 when the weight does not lie in panels.
int widen_avx512(const Product& p, int kind, int step, int64_t first, int64_t last, void* to, int64_t stride);

// Attention of single tokens over their own rows of key-value memory.
struct Attention {
  const float* query;             // element [token, head, i] at token * query_token + head * query_head + i
  int64_t query_token, query_head;
  const void* keys;               // float32, or bfloat16 where `narrow`
  int64_t key_slot, key_head, key_position;
  const void* values;
  int64_t value_slot, value_head, value_position;
  const int64_t* slots;           // [tokens]
  const int64_t* positions;       // [tokens]
  int64_t tokens, heads, kv_heads, width, value_width;  // widths are multiples of eight
  int64_t window;                 // how many keys a token sees, itself counted; 0: all
  float scale, cap;               // cap: scores s become cap * tanh(s / cap); 0: they stay
  int32_t threads, narrow;
  float* output;                  // [tokens, heads, value_width]
};

// One head of one token; `scores` has room for its keys and eight more.
void attend_one(const Attention& a, int64_t token, int64_t head, float* scores);

static inline __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
static inline void store(void* to, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(to), v); }

// Eight stored numbers.
static inline __m256 load8(const float* from) { return _mm256_loadu_ps(from); }
static inline __m256 load8(const uint16_t* from) {
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}
static inline void store8(float* to, __m256 v) { _mm256_storeu_ps(to, v); }
static inline void store8(uint16_t* to, __m256 v) {  // to the nearest bfloat16, of two the even one; NaN stays NaN
  const __m256i bits = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  const __m256i chosen = _mm256_blendv_epi8(up, _mm256_set1_epi32(0x7fc00000), _mm256_castps_si256(nan));
  const __m256i high = _mm256_srli_epi32(chosen, 16);
  const __m128i narrow = _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), narrow);
}

static inline float sum_lanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

// e^x for x <= 0, relative error below 2^-22; 0 below -87.
static inline __m256 exponential(__m256 x) {
  const __m256 low = _mm256_set1_ps(-87.0f);
  const __m256 alive = _mm256_cmp_ps(x, low, _CMP_GE_OQ);
  x = _mm256_max_ps(x, low);
  const __m256 scaled = _mm256_mul_ps(x, _mm256_set1_ps(1.44269504f));
  const __m256 n = _mm256_round_ps(scaled, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
  __m256 p = _mm256_set1_ps(1.9875691500e-4f);
  for (float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  p = _mm256_add_ps(_mm256_fmadd_ps(p, _mm256_mul_ps(r, r), r), _mm256_set1_ps(1.0f));
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  return _mm256_and_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(power)), alive);
}

}  // namespace qtool
