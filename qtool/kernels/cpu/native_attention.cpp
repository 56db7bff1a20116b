// Attention of single tokens over their own rows of key-value memory, in float32, without masks or padding.
//
// The order of additions depends on a token's own position only, so that a token's result is the same bits whoever
// shares the batch. A NaN or infinite score makes the whole output of its head NaN.
#include "native.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

using qtool::Attention;
using qtool::exponential;
using qtool::load8;
using qtool::sum_lanes;

constexpr int64_t kWorthThreads = 1 << 17;  // multiplications below which waking a thread costs more than it saves

// Scores of keys first..last-1, padded to a multiple of eight with what the exponential makes 0; their maximum.
template <typename K>
float score(const Attention& a, const float* query, const K* keys, int64_t first, int64_t last, float* scores) {
  float top = -INFINITY, poison = 0.0f;
  for (int64_t position = first; position < last; position++) {
    const K* key = keys + position * a.key_position;
    __m256 sum = _mm256_setzero_ps(), other = _mm256_setzero_ps();
    int64_t i = 0;
    for (; i + 16 <= a.width; i += 16) {
      sum = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), load8(key + i), sum);
      other = _mm256_fmadd_ps(_mm256_loadu_ps(query + i + 8), load8(key + i + 8), other);
    }
    if (i < a.width) sum = _mm256_fmadd_ps(_mm256_loadu_ps(query + i), load8(key + i), sum);
    float value = sum_lanes(_mm256_add_ps(sum, other)) * a.scale;
    if (a.cap > 0.0f) value = a.cap * std::tanh(value / a.cap);
    scores[position - first] = value;
    top = std::max(top, value);
    poison += value * 0.0f;
  }
  for (int64_t i = last - first; i % 8; i++) scores[i] = -INFINITY;
  return poison == 0.0f ? top : NAN;
}

template <typename K>
void attend(const Attention& a, int64_t token, int64_t head, float* scores) {
  const int64_t slot = a.slots[token], last = a.positions[token] + 1, shared = head / (a.heads / a.kv_heads);
  const int64_t first = a.window > 0 ? std::max<int64_t>(0, last - a.window) : 0;
  const float* query = a.query + token * a.query_token + head * a.query_head;
  const K* keys = static_cast<const K*>(a.keys) + slot * a.key_slot + shared * a.key_head;
  const K* values = static_cast<const K*>(a.values) + slot * a.value_slot + shared * a.value_head;
  values += first * a.value_position;
  float* output = a.output + (token * a.heads + head) * a.value_width;
  const float top = score(a, query, keys, first, last, scores);
  if (top != top) {
    std::fill(output, output + a.value_width, NAN);
    return;
  }
  __m256 total = _mm256_setzero_ps();
  for (int64_t i = 0; i < last - first; i += 8) {
    const __m256 weight = exponential(_mm256_sub_ps(_mm256_loadu_ps(scores + i), _mm256_set1_ps(top)));
    _mm256_storeu_ps(scores + i, weight);
    total = _mm256_add_ps(total, weight);
  }
  const __m256 share = _mm256_set1_ps(1.0f / sum_lanes(total));
  for (int64_t start = 0; start < a.value_width; start += 32) {
    const int parts = static_cast<int>(std::min<int64_t>(4, (a.value_width - start) / 8));
    __m256 acc[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t i = 0; i < last - first; i++) {
      const __m256 weight = _mm256_broadcast_ss(scores + i);
      const K* value = values + i * a.value_position + start;
      if (parts == 4) {
        for (int part = 0; part < 4; part++)
          acc[part] = _mm256_fmadd_ps(weight, load8(value + part * 8), acc[part]);
      } else {
        for (int part = 0; part < parts; part++)
          acc[part] = _mm256_fmadd_ps(weight, load8(value + part * 8), acc[part]);
      }
    }
    for (int part = 0; part < parts; part++)
      _mm256_storeu_ps(output + start + part * 8, _mm256_mul_ps(acc[part], share));
  }
}

template <typename T>
void keep(const float* from, int64_t from_token, int64_t from_head, T* to, const int64_t* strides, const int64_t* slots,
          const int64_t* positions, int64_t tokens, int64_t heads, int64_t width) {
  for (int64_t token = 0; token < tokens; token++)
    for (int64_t head = 0; head < heads; head++) {
      T* cell = to + slots[token] * strides[0] + head * strides[1] + positions[token] * strides[2];
      const float* own = from + token * from_token + head * from_head;
      for (int64_t i = 0; i < width; i += 8) qtool::store8(cell + i, _mm256_loadu_ps(own + i));
    }
}

}  // namespace

void qtool::attend_one(const Attention& a, int64_t token, int64_t head, float* scores) {
  a.narrow ? attend<uint16_t>(a, token, head, scores) : attend<float>(a, token, head, scores);
}

extern "C" {

void qtool_attend(const Attention* given) {
  const Attention& a = *given;
  int64_t longest = 0, work = 0;
  for (int64_t token = 0; token < a.tokens; token++) {
    longest = std::max(longest, a.positions[token] + 1);
    work += (a.positions[token] + 1) * a.heads * (a.width + a.value_width);
  }
#pragma omp parallel num_threads(a.threads) if (work > kWorthThreads)
  {
    std::vector<float> scores(static_cast<size_t>(longest + 8));
#pragma omp for schedule(dynamic, 4)
    for (int64_t pair = 0; pair < a.tokens * a.heads; pair++)
      qtool::attend_one(a, pair / a.heads, pair % a.heads, scores.data());
  }
}

// Copies `width` numbers, eight at a time, of each token and head from [token, head] of `from` to [slot, head, position]
// of `to`, whose strides are given; as bfloat16 where `narrow`.
void qtool_store(const float* from, int64_t from_token, int64_t from_head, void* to, const int64_t* strides,
                 const int64_t* slots, const int64_t* positions, int64_t tokens, int64_t heads, int64_t width,
                 int32_t narrow) {
  if (narrow) {
    keep(from, from_token, from_head, static_cast<uint16_t*>(to), strides, slots, positions, tokens, heads, width);
  } else {
    keep(from, from_token, from_head, static_cast<float*>(to), strides, slots, positions, tokens, heads, width);
  }
}
}
