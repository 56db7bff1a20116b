// One token of each of several sequences through a whole decoder, by one team of threads.
//
// Between the products of a small batch a framework spends longer on its own calls than on the numbers. Here a step is
// one call: the threads meet at barriers, and wake once a token. Additions are in an order that depends on a token
// alone, so that its result is the same bits whoever shares the batch, and whatever the number of threads.
#include "native.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <vector>

namespace {

using qtool::Product;

constexpr int kParts = 3;
constexpr int64_t kStretch = 512;  // activations a thread takes at a time

struct Linear {
  Product product;  // weights only; inputs, output and threads are given here
  int32_t kind, step;
  const float* bias;  // [rows] or null
};

struct Norm {  // of the mean square, or, where `centred`, LayerNorm; `weight` null: numbers stay as they are
  const float *weight, *bias;  // [size]; bias may be null
  float epsilon;
  int32_t centred;
};

enum Activation { kSilu, kGeluTanh, kGelu, kRelu, kReluSquared };

struct Layer {
  Norm input, middle;                       // before attention, before the feed-forward part
  Norm after_attention, after_feed_forward; // of what is added to the state
  Norm query, key;                          // of each head
  Linear attention[kParts];                 // query, key and value: one product, or three
  Linear gate_up[2];                        // one product, or two; without a gate only the first
  Linear output, down;
  void *keys, *values;  // [slots, kv_heads, context, width]
  int64_t window;       // how many keys a token sees, itself counted; 0: all
  float scale, cap;
  int32_t attention_parts, gate_up_parts;
  int32_t gated, activation;
  int32_t rotary;  // which angles rotate its queries and keys; -1: none
};

struct Decoder {
  const Layer* layers;
  int64_t layer_count, hidden, heads, kv_heads, width, inner, context;
  Norm norm;
  Linear head;
  int32_t threads, narrow;  // narrow: keys and values are bfloat16
};

struct Step {
  float* state;            // [tokens, hidden]: embeddings; overwritten
  const float *cos, *sin;  // [rotaries, tokens, rotated]
  int64_t rotated;         // how many numbers of each head are rotated, the first ones
  const int64_t *slots, *positions;
  int64_t tokens;
  float* logits;  // [tokens, rows of the head]
  float* room;    // qtool_decoder_room floats
  double product_seconds;  // out: how long the first thread was inside products
};

struct Room {  // where a step keeps its intermediate numbers, in floats from the start
  int64_t normed, attention, attended, gated, active, added, scratch, all;
};

int64_t scratch_floats(const Linear& linear, int64_t tokens) {
  const int64_t step = std::max(linear.step, 1);
  return tokens * (linear.product.padded + linear.product.padded / step * 9 + 16) + 16;
}

int64_t attention_rows(const Decoder& d) { return (d.heads + 2 * d.kv_heads) * d.width; }

Room room_for(const Decoder& d, int64_t tokens) {
  Room r{};
  int64_t end = 0;
  const auto take = [&](int64_t floats) {
    const int64_t start = end;
    end += (floats + 15) / 16 * 16;
    return start;
  };
  r.normed = take(tokens * d.hidden);
  r.attention = take(tokens * attention_rows(d));
  r.attended = take(tokens * d.heads * d.width);
  r.gated = take(tokens * 2 * d.inner);
  r.active = take(tokens * d.inner);
  r.added = take(tokens * d.hidden);
  int64_t scratch = scratch_floats(d.head, tokens);
  for (int64_t i = 0; i < d.layer_count; i++) {
    const Layer& layer = d.layers[i];
    for (int part = 0; part < layer.attention_parts; part++)
      scratch = std::max(scratch, scratch_floats(layer.attention[part], tokens));
    for (int part = 0; part < layer.gate_up_parts; part++)
      scratch = std::max(scratch, scratch_floats(layer.gate_up[part], tokens));
    scratch = std::max({scratch, scratch_floats(layer.output, tokens), scratch_floats(layer.down, tokens)});
  }
  r.scratch = take(scratch);
  r.all = end;
  return r;
}

// ---- one token -------------------------------------------------------------------------------------------------

// What `norm` makes of `size` numbers, a multiple of eight; `to` may be `x`.
void normalize(const float* x, const Norm& norm, int64_t size, float* to) {
  if (!norm.weight) {
    if (to != x) std::memcpy(to, x, sizeof(float) * size);
    return;
  }
  __m256 sum = _mm256_setzero_ps();
  float mean = 0.0f;
  if (norm.centred) {
    for (int64_t i = 0; i < size; i += 8) sum = _mm256_add_ps(sum, _mm256_loadu_ps(x + i));
    mean = qtool::sum_lanes(sum) / static_cast<float>(size);
    sum = _mm256_setzero_ps();
  }
  const __m256 centre = _mm256_set1_ps(mean);
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 v = _mm256_sub_ps(_mm256_loadu_ps(x + i), centre);
    sum = _mm256_fmadd_ps(v, v, sum);
  }
  const float square = qtool::sum_lanes(sum) / static_cast<float>(size);
  const __m256 factor = _mm256_set1_ps(1.0f / std::sqrt(square + norm.epsilon));
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_sub_ps(_mm256_loadu_ps(x + i), centre), factor);
    const __m256 scaled = _mm256_mul_ps(v, _mm256_loadu_ps(norm.weight + i));
    _mm256_storeu_ps(to + i, norm.bias ? _mm256_add_ps(scaled, _mm256_loadu_ps(norm.bias + i)) : scaled);
  }
}

void add(float* to, const float* what, int64_t size) {
  for (int64_t i = 0; i < size; i += 8)
    _mm256_storeu_ps(to + i, _mm256_add_ps(_mm256_loadu_ps(to + i), _mm256_loadu_ps(what + i)));
}

// Rotates each pair (i, i + size / 2) by the token's angles; the two halves of cos and sin may differ.
void rotate(float* x, const float* cos, const float* sin, int64_t size) {
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; i++) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cos[i] - b * sin[i];
    x[i + half] = b * cos[i + half] + a * sin[i + half];
  }
}

// 1 / (1 + e^-x)
__m256 sigmoid(__m256 x) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), one = _mm256_set1_ps(1.0f);
  const __m256 power = qtool::exponential(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_and_ps(x, no_sign)));
  const __m256 above = _mm256_blendv_ps(one, power, x);  // e^x below zero: blend looks at the sign
  return _mm256_div_ps(above, _mm256_add_ps(one, power));
}

__m256 activated(__m256 x, int kind) {
  const __m256 zero = _mm256_setzero_ps();
  if (kind == kSilu) return _mm256_mul_ps(x, sigmoid(x));
  if (kind == kGeluTanh) {  // x / 2 (1 + tanh u) = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    const __m256 cubic = _mm256_fmadd_ps(_mm256_mul_ps(x, x), _mm256_set1_ps(0.044715f), _mm256_set1_ps(1.0f));
    return _mm256_mul_ps(x, sigmoid(_mm256_mul_ps(_mm256_mul_ps(x, cubic), _mm256_set1_ps(1.5957691216f))));
  }
  if (kind == kGelu) {
    float lanes[8];
    _mm256_storeu_ps(lanes, x);
    for (float& lane : lanes) lane = 0.5f * lane * (1.0f + std::erf(lane * 0.70710678f));
    return _mm256_loadu_ps(lanes);
  }
  const __m256 above = _mm256_blendv_ps(x, zero, x);  // NaN stays NaN
  return kind == kRelu ? above : _mm256_mul_ps(above, above);
}

// activation(gate) * up; without `up` activation(gate)
void activate(const float* gate, const float* up, int kind, int64_t size, float* to) {
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 v = activated(_mm256_loadu_ps(gate + i), kind);
    _mm256_storeu_ps(to + i, up ? _mm256_mul_ps(v, _mm256_loadu_ps(up + i)) : v);
  }
}

template <typename T>
void keep(const float* from, int64_t size, void* memory, int64_t at) {
  T* to = static_cast<T*>(memory) + at;
  for (int64_t i = 0; i < size; i += 8) qtool::store8(to + i, _mm256_loadu_ps(from + i));
}

// ---- the team --------------------------------------------------------------------------------------------------

class Team {  // one for each thread; everything but the constructor is called by all of them together
 public:
  Team(const Decoder& decoder, Step& step)
      : d_(decoder), s_(step), room_(room_for(decoder, step.tokens)) {
    int64_t longest = 0;
    for (int64_t token = 0; token < s_.tokens; token++) longest = std::max(longest, s_.positions[token] + 1);
    scores_.resize(static_cast<size_t>(longest + 8));
  }

  void run() {
    for (int64_t i = 0; i < d_.layer_count; i++) {
      const Layer& layer = d_.layers[i];
      const Layer* before = i == 0 ? nullptr : &d_.layers[i - 1];
      normalize_all(layer.input, before ? &before->down : nullptr, before ? &before->after_feed_forward : nullptr);
      attend(layer);
      multiply(layer.output, at(room_.attended), at(room_.added), d_.hidden);
      normalize_all(layer.middle, &layer.output, &layer.after_attention);
      feed_forward(layer);
    }
    const Layer& last = d_.layers[d_.layer_count - 1];
    normalize_all(d_.norm, &last.down, &last.after_feed_forward);
    multiply(d_.head, at(room_.normed), s_.logits, d_.head.product.rows);
    if (!d_.head.bias) return;
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s_.tokens; token++)
      for (int64_t i = 0; i < d_.head.product.rows; i++) s_.logits[token * d_.head.product.rows + i] += d_.head.bias[i];
  }

  double product_seconds() const { return seconds_; }

 private:
  float* at(int64_t place) const { return s_.room + place; }

  // Adds what the last product gave, with its bias and after its own norm, to the state; then normalizes the state.
  void normalize_all(const Norm& norm, const Linear* last, const Norm* after) {
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s_.tokens; token++) {
      float *state = s_.state + token * d_.hidden, *added = at(room_.added) + token * d_.hidden;
      if (last && last->bias) add(added, last->bias, d_.hidden);
      if (last) normalize(added, *after, d_.hidden, added);
      if (last) add(state, added, d_.hidden);
      normalize(state, norm, d_.hidden, at(room_.normed) + token * d_.hidden);
    }
  }

  void multiply(const Linear& linear, const float* inputs, float* output, int64_t stride) {
    const auto started = std::chrono::steady_clock::now();
    Product product = linear.product;
    product.inputs = inputs;
    product.tokens = s_.tokens;
    product.output = output;
    product.stride = stride;
    product.scratch = at(room_.scratch);
    qtool::multiply_by_team(product, linear.kind, linear.step);
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  }

  void attend(const Layer& layer) {
    const int64_t rows = attention_rows(d_), width = d_.width;
    float* joined = at(room_.attention);
    float* part_output = joined;
    for (int part = 0; part < layer.attention_parts; part++) {
      multiply(layer.attention[part], at(room_.normed), part_output, rows);
      part_output += layer.attention[part].product.rows;
    }
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s_.tokens; token++) remember(layer, token, joined + token * rows);
    qtool::Attention call{};
    call.query = joined, call.query_token = rows, call.query_head = width;
    call.keys = layer.keys, call.values = layer.values;
    call.key_position = call.value_position = width;
    call.key_head = call.value_head = d_.context * width;
    call.key_slot = call.value_slot = d_.kv_heads * d_.context * width;
    call.slots = s_.slots, call.positions = s_.positions;
    call.tokens = s_.tokens, call.heads = d_.heads, call.kv_heads = d_.kv_heads;
    call.width = call.value_width = width;
    call.window = layer.window, call.scale = layer.scale, call.cap = layer.cap, call.narrow = d_.narrow;
    call.output = at(room_.attended);
#pragma omp for schedule(dynamic, 4)
    for (int64_t pair = 0; pair < s_.tokens * d_.heads; pair++)
      qtool::attend_one(call, pair / d_.heads, pair % d_.heads, scores_.data());
  }

  // Finishes query, key and value of a token, and puts the last two where later tokens find them.
  void remember(const Layer& layer, int64_t token, float* joined) {
    const int64_t width = d_.width;
    float* begin = joined;
    for (int part = 0; part < layer.attention_parts; part++) {
      if (layer.attention[part].bias) add(begin, layer.attention[part].bias, layer.attention[part].product.rows);
      begin += layer.attention[part].product.rows;
    }
    for (int64_t head = 0; head < d_.heads + d_.kv_heads; head++) {
      float* own = joined + head * width;
      normalize(own, head < d_.heads ? layer.query : layer.key, width, own);
      if (layer.rotary < 0) continue;
      const int64_t angles = (layer.rotary * s_.tokens + token) * s_.rotated;
      rotate(own, s_.cos + angles, s_.sin + angles, s_.rotated);
    }
    const float *keys = joined + d_.heads * width, *values = keys + d_.kv_heads * width;
    for (int64_t head = 0; head < d_.kv_heads; head++) {
      const int64_t to = ((s_.slots[token] * d_.kv_heads + head) * d_.context + s_.positions[token]) * width;
      d_.narrow ? keep<uint16_t>(keys + head * width, width, layer.keys, to)
                : keep<float>(keys + head * width, width, layer.keys, to);
      d_.narrow ? keep<uint16_t>(values + head * width, width, layer.values, to)
                : keep<float>(values + head * width, width, layer.values, to);
    }
  }

  void feed_forward(const Layer& layer) {
    const int64_t inner = d_.inner, stretches = (inner + kStretch - 1) / kStretch;
    float* gated = at(room_.gated);
    multiply(layer.gate_up[0], at(room_.normed), gated, 2 * inner);
    if (layer.gate_up_parts == 2) multiply(layer.gate_up[1], at(room_.normed), gated + inner, 2 * inner);
    const float* gate_bias = layer.gate_up[0].bias;
    const float* up_bias = layer.gate_up_parts == 2 ? layer.gate_up[1].bias : gate_bias && layer.gated ? gate_bias + inner : nullptr;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s_.tokens * stretches; i++) {
      const int64_t token = i / stretches, from = i % stretches * kStretch, size = std::min(kStretch, inner - from);
      float *gate = gated + token * 2 * inner + from, *up = layer.gated ? gate + inner : nullptr;
      if (gate_bias) add(gate, gate_bias + from, size);
      if (up && up_bias) add(up, up_bias + from, size);
      activate(gate, up, layer.activation, size, at(room_.active) + token * inner + from);
    }
    multiply(layer.down, at(room_.active), at(room_.added), d_.hidden);
  }

  const Decoder& d_;
  Step& s_;
  const Room room_;
  std::vector<float> scores_;
  double seconds_ = 0.0;
};

}  // namespace

extern "C" {

// Bytes of each structure that Python fills, in the order of native_structures.py.
void qtool_sizes(int64_t* to) {
  const int64_t sizes[] = {sizeof(Product), sizeof(qtool::Attention), sizeof(Linear), sizeof(Norm), sizeof(Layer),
                           sizeof(Decoder), sizeof(Step)};
  std::copy(std::begin(sizes), std::end(sizes), to);
}

int64_t qtool_decoder_room(const Decoder* decoder, int64_t tokens) { return room_for(*decoder, tokens).all; }

// Logits of the step's tokens; their keys and values are stored.
void qtool_decode(const Decoder* decoder, Step* step) {
#pragma omp parallel num_threads(decoder->threads)
  {
    Team team(*decoder, *step);
    team.run();
#pragma omp master
    step->product_seconds = team.product_seconds();
  }
}
}
