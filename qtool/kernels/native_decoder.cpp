// One token of each of several sequences through a whole Llama-shaped decoder, by one team of threads.
//
// Between the products of a small batch a framework spends longer on its own calls than on the numbers. Here a step is
// one call: the threads meet at barriers, and wake once a token. Additions are in an order that depends on a token
// alone, so that its result is the same bits whoever shares the batch, and whatever the number of threads.
#include "native.h"

#include <algorithm>
#include <chrono>
#include <cmath>
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

struct Layer {
  const float *input_norm, *middle_norm;  // [hidden]
  const float *query_norm, *key_norm;     // [width] or null
  Linear attention[kParts];               // query, key and value: one product, or three
  Linear gate_up[2];                      // one product, or two
  Linear output, down;
  float *keys, *values;  // [slots, kv_heads, context, width]
  int64_t window;        // how many keys a token sees, itself counted; 0: all
  float scale;
  int32_t attention_parts, gate_up_parts;
};

struct Decoder {
  const Layer* layers;
  int64_t layer_count, hidden, heads, kv_heads, width, inner, context;
  const float* norm;
  Linear head;
  float epsilon;
  int32_t threads;
};

struct Step {
  float* state;            // [tokens, hidden]: embeddings; overwritten
  const float *cos, *sin;  // [tokens, rotated]
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

// x / sqrt(mean(x^2) + epsilon) * weight; `size` is a multiple of eight.
void normalize(const float* x, const float* weight, int64_t size, float epsilon, float* to) {
  __m256 sum = _mm256_setzero_ps();
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    sum = _mm256_fmadd_ps(v, v, sum);
  }
  const float mean = qtool::sum_lanes(sum) / static_cast<float>(size);
  const __m256 factor = _mm256_set1_ps(1.0f / std::sqrt(mean + epsilon));
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 v = _mm256_mul_ps(_mm256_loadu_ps(x + i), factor);
    _mm256_storeu_ps(to + i, _mm256_mul_ps(v, _mm256_loadu_ps(weight + i)));
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

// gate / (1 + e^-gate) * up
void activate(const float* gate, const float* up, int64_t size, float* to) {
  const __m256 no_sign = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff)), one = _mm256_set1_ps(1.0f);
  for (int64_t i = 0; i < size; i += 8) {
    const __m256 g = _mm256_loadu_ps(gate + i);
    const __m256 power = qtool::exponential(_mm256_sub_ps(_mm256_setzero_ps(), _mm256_and_ps(g, no_sign)));
    const __m256 above = _mm256_blendv_ps(one, power, g);  // e^g below zero: blend looks at the sign
    const __m256 share = _mm256_div_ps(above, _mm256_add_ps(one, power));
    _mm256_storeu_ps(to + i, _mm256_mul_ps(_mm256_mul_ps(g, share), _mm256_loadu_ps(up + i)));
  }
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
      normalize_all(layer.input_norm, i == 0 ? nullptr : &d_.layers[i - 1].down);
      attend(layer);
      multiply(layer.output, at(room_.attended), at(room_.added), d_.hidden);
      normalize_all(layer.middle_norm, &layer.output);
      feed_forward(layer);
    }
    normalize_all(d_.norm, &d_.layers[d_.layer_count - 1].down);
    multiply(d_.head, at(room_.normed), s_.logits, d_.head.product.rows);
  }

  double product_seconds() const { return seconds_; }

 private:
  float* at(int64_t place) const { return s_.room + place; }

  // Adds what the last product gave, and its bias, to the state; then normalizes the state.
  void normalize_all(const float* weight, const Linear* last) {
#pragma omp for schedule(static)
    for (int64_t token = 0; token < s_.tokens; token++) {
      float* state = s_.state + token * d_.hidden;
      if (last) add(state, at(room_.added) + token * d_.hidden, d_.hidden);
      if (last && last->bias) add(state, last->bias, d_.hidden);
      normalize(state, weight, d_.hidden, d_.epsilon, at(room_.normed) + token * d_.hidden);
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
    call.window = layer.window, call.scale = layer.scale;
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
    const float *cos = s_.cos + token * s_.rotated, *sin = s_.sin + token * s_.rotated;
    for (int64_t head = 0; head < d_.heads + d_.kv_heads; head++) {
      const float* norm = head < d_.heads ? layer.query_norm : layer.key_norm;
      if (norm) normalize(joined + head * width, norm, width, d_.epsilon, joined + head * width);
      rotate(joined + head * width, cos, sin, s_.rotated);
    }
    const float* keys = joined + d_.heads * width;
    for (int64_t head = 0; head < d_.kv_heads; head++) {
      const int64_t to = ((s_.slots[token] * d_.kv_heads + head) * d_.context + s_.positions[token]) * width;
      std::memcpy(layer.keys + to, keys + head * width, sizeof(float) * width);
      std::memcpy(layer.values + to, keys + (d_.kv_heads + head) * width, sizeof(float) * width);
    }
  }

  void feed_forward(const Layer& layer) {
    const int64_t inner = d_.inner, stretches = (inner + kStretch - 1) / kStretch;
    float* gated = at(room_.gated);
    multiply(layer.gate_up[0], at(room_.normed), gated, 2 * inner);
    if (layer.gate_up_parts == 2) multiply(layer.gate_up[1], at(room_.normed), gated + inner, 2 * inner);
    const float* gate_bias = layer.gate_up[0].bias;
    const float* up_bias = layer.gate_up_parts == 2 ? layer.gate_up[1].bias : gate_bias ? gate_bias + inner : nullptr;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s_.tokens * stretches; i++) {
      const int64_t token = i / stretches, from = i % stretches * kStretch, size = std::min(kStretch, inner - from);
      float *gate = gated + token * 2 * inner + from, *up = gate + inner;
      if (gate_bias) add(gate, gate_bias + from, size);
      if (up_bias) add(up, up_bias + from, size);
      activate(gate, up, size, at(room_.active) + token * inner + from);
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
