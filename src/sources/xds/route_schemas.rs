//! The names of the fields of listeners and routes in Envoy's API, for messages about them.

use super::proto::Schema;

pub(super) const LISTENER: Schema = Schema(
    "listener",
    "1 name 2 address 3 filter_chains 4 use_original_dst 5 per_connection_buffer_limit_bytes \
     6 metadata 7 deprecated_v1 8 drain_type 9 listener_filters 10 transparent 11 freebind \
     12 tcp_fast_open_queue_length 13 socket_options 15 listener_filters_timeout \
     16 traffic_direction 17 continue_on_listener_filters_timeout 18 udp_listener_config \
     19 api_listener 20 connection_balance_config 21 reuse_port 22 access_log \
     24 tcp_backlog_size 25 default_filter_chain 26 bind_to_port 27 internal_listener \
     28 stat_prefix 29 enable_reuse_port 30 enable_mptcp 31 ignore_global_conn_limit \
     32 filter_chain_matcher 33 additional_addresses \
     34 max_connections_to_accept_per_socket_event 35 bypass_overload_manager 36 fcds_config \
     37 tcp_keepalive 38 per_connection_buffer_high_watermark_timeout 39 stats_matcher",
);

pub(super) const FILTER_CHAIN: Schema = Schema(
    "filter_chains",
    "1 filter_chain_match 3 filters 4 use_proxy_proto 5 metadata 6 transport_socket 7 name \
     9 transport_socket_connect_timeout",
);

pub(super) const CHAIN_MATCH: Schema = Schema(
    "filter_chain_match",
    "3 prefix_ranges 4 address_suffix 5 suffix_len 6 source_prefix_ranges 8 destination_port \
     9 transport_protocol 10 application_protocols 11 server_names 12 source_type \
     13 direct_source_prefix_ranges",
);

pub(super) const FILTER: Schema = Schema("filters", "1 name 4 typed_config 5 config_discovery");

pub(super) const LISTENER_FILTER: Schema =
    Schema("listener_filters", "1 name 3 typed_config 4 filter_disabled 5 config_discovery");

pub(super) const MANAGER: Schema = Schema(
    "http_connection_manager",
    "1 codec_type 2 stat_prefix 3 rds 4 route_config 5 http_filters 6 add_user_agent \
     7 tracing 8 http_protocol_options 9 http2_protocol_options 10 server_name \
     12 drain_timeout 13 access_log 14 use_remote_address 15 generate_request_id \
     16 forward_client_cert_details 17 set_current_client_cert_details 18 proxy_100_continue \
     19 xff_num_trusted_hops 20 represent_ipv4_remote_address_as_ipv4_mapped_ipv6 \
     21 skip_xff_append 22 via 23 upgrade_configs 24 stream_idle_timeout \
     25 internal_address_config 26 delayed_close_timeout 28 request_timeout \
     29 max_request_headers_kb 30 normalize_path 31 scoped_routes \
     32 preserve_external_request_id 33 merge_slashes 34 server_header_transformation \
     35 common_http_protocol_options 36 request_id_extension \
     37 always_set_request_id_in_response 38 local_reply_config 39 strip_matching_host_port \
     40 stream_error_on_invalid_http_message 41 request_headers_timeout \
     42 strip_any_host_port 43 path_normalization_options 44 http3_protocol_options \
     45 path_with_escaped_slashes_action 46 original_ip_detection_extensions \
     47 strip_trailing_host_dot 48 scheme_header_transformation 49 proxy_status_config \
     50 typed_header_validation_config 51 append_x_forwarded_port \
     52 early_header_mutation_extensions 53 add_proxy_protocol_connection_state \
     54 access_log_flush_interval 55 flush_access_log_on_new_request 56 access_log_options \
     57 append_local_overload 58 http1_safe_max_connection_duration 59 stream_flush_timeout \
     60 forward_client_cert_matcher 61 forward_proto_config 62 drain_timeout_jitter \
     63 record_route_resolution_stats",
);

pub(super) const RDS: Schema = Schema("rds", "1 config_source 2 route_config_name");

pub(super) const HTTP_FILTER: Schema =
    Schema("http_filters", "1 name 4 typed_config 5 config_discovery 6 is_optional 7 disabled");

pub(super) const TCP_PROXY: Schema = Schema(
    "tcp_proxy",
    "1 stat_prefix 2 cluster 3 downstream_idle_timeout 4 upstream_idle_timeout 5 access_log \
     7 max_connect_attempts 8 idle_timeout 9 metadata_match 10 weighted_clusters \
     11 hash_policy 12 tunneling_config 13 max_downstream_connection_duration 14 on_demand \
     15 access_log_flush_interval 16 flush_access_log_on_connected 17 access_log_options \
     18 backoff_options 19 proxy_protocol_tlvs \
     20 max_downstream_connection_duration_jitter_percentage 21 upstream_connect_mode \
     22 max_early_data_bytes 23 proxy_protocol_tlv_merge_policy 24 check_drain_close",
);

pub(super) const ROUTE_CONFIG: Schema = Schema(
    "route_configuration",
    "1 name 2 virtual_hosts 3 internal_only_headers 4 response_headers_to_add \
     5 response_headers_to_remove 6 request_headers_to_add 7 validate_clusters \
     8 request_headers_to_remove 9 vhds 10 most_specific_header_mutations_wins \
     11 max_direct_response_body_size_bytes 12 cluster_specifier_plugins \
     13 request_mirror_policies 14 ignore_port_in_host_matching \
     15 ignore_path_parameters_in_path_matching 16 typed_per_filter_config 17 metadata \
     18 vhost_header 19 route_specifiers",
);

pub(super) const VIRTUAL_HOST: Schema = Schema(
    "virtual_hosts",
    "1 name 2 domains 3 routes 4 require_tls 5 virtual_clusters 6 rate_limits \
     7 request_headers_to_add 8 cors 10 response_headers_to_add 11 response_headers_to_remove \
     13 request_headers_to_remove 14 include_request_attempt_count 15 typed_per_filter_config \
     16 retry_policy 17 hedge_policy 18 per_request_buffer_limit_bytes \
     19 include_attempt_count_in_response 20 retry_policy_typed_config 21 matcher \
     22 request_mirror_policies 23 include_is_timeout_retry_header 24 metadata \
     25 request_body_buffer_limit 26 route_specifiers",
);

pub(super) const ROUTE: Schema = Schema(
    "routes",
    "1 match 2 route 3 redirect 4 metadata 5 decorator 7 direct_response \
     9 request_headers_to_add 10 response_headers_to_add 11 response_headers_to_remove \
     12 request_headers_to_remove 13 typed_per_filter_config 14 name 15 tracing \
     16 per_request_buffer_limit_bytes 17 filter_action 18 non_forwarding_action \
     19 stat_prefix 20 request_body_buffer_limit 21 route_specifiers",
);

pub(super) const MATCH: Schema = Schema(
    "match",
    "1 prefix 2 path 4 case_sensitive 6 headers 7 query_parameters 8 grpc 9 runtime_fraction \
     10 safe_regex 11 tls_context 12 connect_matcher 13 dynamic_metadata \
     14 path_separated_prefix 15 path_match_policy 16 filter_state 17 cookies",
);

pub(super) const ACTION: Schema = Schema(
    "route",
    "1 cluster 2 cluster_header 3 weighted_clusters 4 metadata_match 5 prefix_rewrite \
     6 host_rewrite_literal 7 auto_host_rewrite 8 timeout 9 retry_policy 11 priority \
     13 rate_limits 14 include_vh_rate_limits 15 hash_policy 17 cors \
     20 cluster_not_found_response_code 23 max_grpc_timeout 24 idle_timeout \
     25 upgrade_configs 26 internal_redirect_action 27 hedge_policy 28 grpc_timeout_offset \
     29 host_rewrite_header 30 request_mirror_policies 31 max_internal_redirects \
     32 regex_rewrite 33 retry_policy_typed_config 34 internal_redirect_policy \
     35 host_rewrite_path_regex 36 max_stream_duration 37 cluster_specifier_plugin \
     38 append_x_forwarded_host 39 inline_cluster_specifier_plugin 40 early_data_policy \
     41 path_rewrite_policy 42 flush_timeout 44 host_rewrite 45 path_rewrite",
);

pub(super) const WEIGHTED: Schema = Schema(
    "weighted_clusters",
    "1 clusters 2 runtime_key_prefix 3 total_weight 4 header_name 5 use_hash_policy",
);

pub(super) const WEIGHT: Schema = Schema(
    "weighted_clusters.clusters",
    "1 name 2 weight 3 metadata_match 4 request_headers_to_add 5 response_headers_to_add \
     6 response_headers_to_remove 9 request_headers_to_remove 10 typed_per_filter_config \
     11 host_rewrite_literal 12 cluster_header",
);

pub(super) const REDIRECT: Schema = Schema(
    "redirect",
    "1 host_redirect 2 path_redirect 3 response_code 4 https_redirect 5 prefix_rewrite \
     6 strip_query 7 scheme_redirect 8 port_redirect 9 regex_rewrite 10 path_rewrite",
);

pub(super) const DIRECT: Schema = Schema("direct_response", "1 status 2 body 3 body_format");

pub(super) const RETRY: Schema = Schema(
    "retry_policy",
    "1 retry_on 2 num_retries 3 per_try_timeout 4 retry_priority 5 retry_host_predicate \
     6 host_selection_retry_max_attempts 8 retry_back_off 9 retriable_headers \
     10 retriable_request_headers 11 rate_limited_retry_back_off 12 retry_options_predicates \
     13 per_try_idle_timeout 14 refresh_cluster_on_retry",
);

pub(super) const BACK_OFF: Schema = Schema("retry_back_off", "1 base_interval 2 max_interval");

pub(super) const HEADER_MATCH: Schema = Schema(
    "headers",
    "1 name 4 exact_match 6 range_match 7 present_match 8 invert_match 9 prefix_match \
     10 suffix_match 11 safe_regex_match 12 contains_match 13 string_match \
     14 treat_missing_header_as_empty",
);

pub(super) const QUERY_MATCH: Schema =
    Schema("query_parameters", "1 name 5 string_match 6 present_match");

pub(super) const MIRROR: Schema = Schema(
    "request_mirror_policies",
    "1 cluster 3 runtime_fraction 4 trace_sampled 5 cluster_header \
     6 disable_shadow_host_suffix_append 7 request_headers_mutations 8 host_rewrite_literal",
);

pub(super) const STREAM_DURATION: Schema = Schema(
    "max_stream_duration",
    "1 max_stream_duration 2 grpc_timeout_header_max 3 grpc_timeout_header_offset",
);

pub(super) const STRING_MATCH: Schema = Schema(
    "string_match",
    "1 exact 2 prefix 3 suffix 5 safe_regex 6 ignore_case 7 contains 8 custom",
);

pub(super) const REGEX: Schema = Schema("safe_regex", "1 google_re2 2 regex");

pub(super) const REGEX_REWRITE: Schema = Schema("regex_rewrite", "1 pattern 2 substitution");

pub(super) const FRACTION: Schema = Schema("runtime_fraction", "1 default_value 2 runtime_key");

pub(super) const HEADER_OPTION: Schema =
    Schema("header to add", "1 header 2 append 3 append_action 4 keep_empty_value");

pub(super) const HEADER_VALUE: Schema = Schema("header", "1 key 2 value 3 raw_value");

pub(super) const UPGRADE: Schema =
    Schema("upgrade_configs", "1 upgrade_type 2 enabled 3 connect_config");
