"""The names that dashboards, autoscalers and gateways know from vLLM, for the series that mean the same here."""

from collections.abc import Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.samples import Sample

NAMES = {
    "qtool_requests_running": "vllm:num_requests_running",
    "qtool_requests_waiting": "vllm:num_requests_waiting",
    "qtool_kv_cache_usage_ratio": "vllm:kv_cache_usage_perc",
    "qtool_prefix_cache_queries": "vllm:prefix_cache_queries",
    "qtool_prefix_cache_hits": "vllm:prefix_cache_hits",
    "qtool_prompt_tokens": "vllm:prompt_tokens",
    "qtool_generation_tokens": "vllm:generation_tokens",
    "qtool_choices": "vllm:request_success",
    "qtool_time_to_first_token_seconds": "vllm:time_to_first_token_seconds",
    "qtool_inter_token_latency_seconds": "vllm:inter_token_latency_seconds",
    "qtool_time_per_output_token_seconds": "vllm:request_time_per_output_token_seconds",
    "qtool_request_duration_seconds": "vllm:e2e_request_latency_seconds",
    "qtool_request_queue_time_seconds": "vllm:request_queue_time_seconds",
    "qtool_prefill_seconds": "vllm:request_prefill_time_seconds",
    "qtool_decode_seconds": "vllm:request_decode_time_seconds",
}


def with_vllm_names(metrics: Iterable[Metric]) -> Iterator[Metric]:
    """All `metrics`, and those that vLLM has too once more under its name, with `model_name` for `model`."""
    for metric in metrics:
        yield metric
        name = NAMES.get(metric.name)
        if name is None:
            continue
        copy = Metric(name, metric.documentation, metric.type, metric.unit)
        for sample in metric.samples:
            labels = {("model_name" if key == "model" else key): value for key, value in sample.labels.items()}
            copy.samples.append(
                Sample(
                    sample.name.replace(metric.name, name, 1),
                    labels,
                    sample.value,
                    sample.timestamp,
                    sample.exemplar,
                    sample.native_histogram,
                )
            )
        yield copy
