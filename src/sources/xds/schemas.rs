//! The names of the fields of clusters and endpoints in Envoy's API, for messages about them.

use super::proto::Schema;

pub(super) const CLUSTER: Schema = Schema(
    "cluster",
    "1 name 2 type 3 eds_cluster_config 4 connect_timeout 5 per_connection_buffer_limit_bytes \
     6 lb_policy 8 health_checks 9 max_requests_per_connection 10 circuit_breakers \
     13 http_protocol_options 14 http2_protocol_options 16 dns_refresh_rate \
     17 dns_lookup_family 18 dns_resolvers 19 outlier_detection 20 cleanup_interval \
     21 upstream_bind_config 22 lb_subset_config 23 ring_hash_lb_config 24 transport_socket \
     25 metadata 26 protocol_selection 27 common_lb_config 28 alt_stat_name \
     29 common_http_protocol_options 30 upstream_connection_options \
     31 close_connections_on_host_health_failure 32 ignore_health_on_host_removal \
     33 load_assignment 34 original_dst_lb_config 36 typed_extension_protocol_options \
     37 least_request_lb_config 38 cluster_type 39 respect_dns_ttl 40 filters \
     41 load_balancing_policy 42 lrs_server 43 transport_socket_matches \
     44 dns_failure_refresh_rate 45 use_tcp_for_dns_lookups 46 upstream_http_protocol_options \
     47 track_timeout_budgets 48 upstream_config 49 track_cluster_stats 50 preconnect_policy \
     51 connection_pool_per_downstream_connection 52 maglev_lb_config \
     53 dns_resolution_config 54 wait_for_warm_on_init 55 typed_dns_resolver_config \
     56 round_robin_lb_config 57 lrs_report_endpoint_metrics 58 dns_jitter \
     59 transport_socket_matcher 60 per_connection_buffer_high_watermark_timeout \
     61 stats_matcher 62 queuing_policies",
);

pub(super) const EDS_CONFIG: Schema = Schema("eds_cluster_config", "1 eds_config 2 service_name");

pub(super) const COMMON_LB: Schema = Schema(
    "common_lb_config",
    "1 healthy_panic_threshold 2 zone_aware_lb_config 3 locality_weighted_lb_config \
     4 update_merge_window 5 ignore_new_hosts_until_first_hc \
     6 close_connections_on_host_set_change 7 consistent_hashing_lb_config \
     8 override_host_status",
);

pub(super) const LB_POLICY: Schema = Schema("load_balancing_policy", "1 policies");

pub(super) const LB_POLICY_ENTRY: Schema =
    Schema("load_balancing_policy.policies", "4 typed_extension_config");

/// The settings of a balancer as a field of the cluster, and as an extension.
pub(super) const LEAST_REQUEST_FIELD: Schema =
    Schema("least_request_lb_config", "1 choice_count 2 active_request_bias 3 slow_start_config");

pub(super) const ROUND_ROBIN_FIELD: Schema = Schema("round_robin_lb_config", "1 slow_start_config");

pub(super) const LEAST_REQUEST: Schema = Schema(
    "LeastRequest",
    "1 choice_count 2 active_request_bias 3 slow_start_config 4 enable_full_scan \
     5 locality_lb_config 6 selection_method",
);

pub(super) const ROUND_ROBIN: Schema =
    Schema("RoundRobin", "1 slow_start_config 2 locality_lb_config");

pub(super) const RANDOM: Schema = Schema("Random", "1 locality_lb_config");

pub(super) const LOCALITY_LB: Schema =
    Schema("locality_lb_config", "1 zone_aware_lb_config 2 locality_weighted_lb_config");

pub(super) const SLOW_START: Schema =
    Schema("slow_start_config", "1 slow_start_window 2 aggression 3 min_weight_percent");

pub(super) const BREAKERS: Schema =
    Schema("circuit_breakers", "1 thresholds 2 per_host_thresholds");

pub(super) const THRESHOLDS: Schema = Schema(
    "circuit_breakers.thresholds",
    "1 priority 2 max_connections 3 max_pending_requests 4 max_requests 5 max_retries \
     6 track_remaining 7 max_connection_pools 8 retry_budget",
);

pub(super) const OUTLIERS: Schema = Schema(
    "outlier_detection",
    "1 consecutive_5xx 2 interval 3 base_ejection_time 4 max_ejection_percent \
     5 enforcing_consecutive_5xx 6 enforcing_success_rate 7 success_rate_minimum_hosts \
     8 success_rate_request_volume 9 success_rate_stdev_factor 10 consecutive_gateway_failure \
     11 enforcing_consecutive_gateway_failure 12 split_external_local_origin_errors \
     13 consecutive_local_origin_failure 14 enforcing_consecutive_local_origin_failure \
     15 enforcing_local_origin_success_rate 16 failure_percentage_threshold \
     17 enforcing_failure_percentage 18 enforcing_failure_percentage_local_origin \
     19 failure_percentage_minimum_hosts 20 failure_percentage_request_volume \
     21 max_ejection_time 22 max_ejection_time_jitter \
     23 successful_active_health_check_uneject_host 24 monitors 25 always_eject_one_host \
     26 detect_degraded_hosts",
);

pub(super) const ASSIGNMENT: Schema =
    Schema("cluster_load_assignment", "1 cluster_name 2 endpoints 4 policy 5 named_endpoints");

pub(super) const ASSIGNMENT_POLICY: Schema = Schema(
    "cluster_load_assignment.policy",
    "2 drop_overloads 3 overprovisioning_factor 4 endpoint_stale_after \
     6 weighted_priority_health",
);

pub(super) const LOCALITY_ENDPOINTS: Schema = Schema(
    "endpoints",
    "1 locality 2 lb_endpoints 3 load_balancing_weight 5 priority 6 proximity \
     7 load_balancer_endpoints 8 leds_cluster_locality_config 9 metadata",
);

pub(super) const LB_ENDPOINT: Schema = Schema(
    "lb_endpoints",
    "1 endpoint 2 health_status 3 metadata 4 load_balancing_weight 5 endpoint_name",
);

pub(super) const ENDPOINT: Schema = Schema(
    "endpoint",
    "1 address 2 health_check_config 3 hostname 4 additional_addresses 5 observability_name",
);

pub(super) const ENDPOINT_CHECK: Schema = Schema(
    "health_check_config",
    "1 port_value 2 hostname 3 address 4 disable_active_health_check",
);

pub(super) const ADDRESS: Schema =
    Schema("address", "1 socket_address 2 pipe 3 envoy_internal_address");

pub(super) const SOCKET_ADDRESS: Schema = Schema(
    "socket_address",
    "1 protocol 2 address 3 port_value 4 named_port 5 resolver_name 6 ipv4_compat \
     7 network_namespace_filepath",
);

pub(super) const LOCALITY: Schema = Schema("locality", "1 region 2 zone 3 sub_zone");

pub(super) const DATA_SOURCE: Schema = Schema(
    "data source",
    "1 filename 2 inline_bytes 3 inline_string 4 environment_variable 5 watched_directory",
);

pub(super) const TRANSPORT_SOCKET: Schema = Schema("transport_socket", "1 name 3 typed_config");

pub(super) const CONFIG_SOURCE: Schema = Schema(
    "config_source",
    "1 path 2 api_config_source 3 ads 4 initial_fetch_timeout 5 self 6 resource_api_version \
     7 authorities 8 path_config_source",
);

pub(super) const EXTENSION: Schema = Schema("typed_extension_config", "1 name 2 typed_config");

pub(super) const HTTP_OPTIONS: Schema = Schema(
    "http protocol options",
    "1 idle_timeout 2 max_headers_count 3 max_connection_duration 4 max_stream_duration \
     5 headers_with_underscores_action 6 max_requests_per_connection \
     7 max_response_headers_kb 8 max_connection_duration_jitter",
);

pub(super) const HTTP2_OPTIONS: Schema = Schema(
    "http2_protocol_options",
    "1 hpack_table_size 2 max_concurrent_streams 3 initial_stream_window_size \
     4 initial_connection_window_size 5 allow_connect 6 allow_metadata 7 max_outbound_frames \
     8 max_outbound_control_frames 9 max_consecutive_inbound_frames_with_empty_payload \
     10 max_inbound_priority_frames_per_stream \
     11 max_inbound_window_update_frames_per_data_frame_sent \
     12 stream_error_on_invalid_http_messaging 13 custom_settings_parameters \
     14 override_stream_error_on_invalid_http_message 15 connection_keepalive \
     16 use_oghttp2_codec 17 max_metadata_size 18 enable_huffman_encoding \
     19 max_header_field_size_kb 20 disallow_obs_text 21 stream_reset_burst \
     22 stream_reset_rate",
);

pub(super) const HEALTH_CHECK: Schema = Schema(
    "health_checks",
    "1 timeout 2 interval 3 interval_jitter 4 unhealthy_threshold 5 healthy_threshold \
     6 alt_port 7 reuse_connection 8 http_health_check 9 tcp_health_check \
     11 grpc_health_check 12 no_traffic_interval 13 custom_health_check 14 unhealthy_interval \
     15 unhealthy_edge_interval 16 healthy_edge_interval 17 event_log_path \
     18 interval_jitter_percent 19 always_log_health_check_failures 20 initial_jitter \
     21 tls_options 22 event_service 23 transport_socket_match_criteria \
     24 no_traffic_healthy_interval 25 event_logger 26 always_log_health_check_success \
     27 name",
);

pub(super) const HTTP_CHECK: Schema = Schema(
    "http_health_check",
    "1 host 2 path 3 send 4 receive 6 request_headers_to_add 8 request_headers_to_remove \
     9 expected_statuses 10 codec_client_type 11 service_name_matcher 12 retriable_statuses \
     13 method 14 response_buffer_size 15 use_alpn_protocol",
);

pub(super) const TCP_CHECK: Schema =
    Schema("tcp_health_check", "1 send 2 receive 3 proxy_protocol_config");

pub(super) const GRPC_CHECK: Schema =
    Schema("grpc_health_check", "1 service_name 2 authority 3 initial_metadata");

pub(super) const UPSTREAM_HTTP: Schema = Schema(
    "HttpProtocolOptions",
    "1 common_http_protocol_options 2 upstream_http_protocol_options 3 explicit_http_config \
     4 use_downstream_protocol_config 5 auto_config 6 http_filters 7 header_validation_config \
     8 outlier_detection 9 request_mirror_policies 10 hash_policy 11 retry_policy",
);

pub(super) const EXPLICIT_HTTP: Schema = Schema(
    "explicit_http_config",
    "1 http_protocol_options 2 http2_protocol_options 3 http3_protocol_options",
);

pub(super) const UPSTREAM_TLS: Schema = Schema(
    "UpstreamTlsContext",
    "1 common_tls_context 2 sni 3 allow_renegotiation 4 max_session_keys \
     5 enforce_rsa_key_usage 6 auto_host_sni 7 auto_sni_san_validation",
);

pub(super) const COMMON_TLS: Schema = Schema(
    "common_tls_context",
    "1 tls_params 2 tls_certificates 3 validation_context 4 alpn_protocols \
     6 tls_certificate_sds_secret_configs 7 validation_context_sds_secret_config \
     8 combined_validation_context 9 tls_certificate_certificate_provider \
     10 validation_context_certificate_provider \
     11 tls_certificate_certificate_provider_instance \
     12 validation_context_certificate_provider_instance 13 custom_handshaker \
     14 tls_certificate_provider_instance 15 key_log 16 custom_tls_certificate_selector",
);

pub(super) const VALIDATION: Schema = Schema(
    "validation_context",
    "1 trusted_ca 2 verify_certificate_hash 3 verify_certificate_spki \
     6 require_signed_certificate_timestamp 7 crl 8 allow_expired_certificate \
     9 match_subject_alt_names 10 trust_chain_verification 11 watched_directory \
     12 custom_validator_config 13 ca_certificate_provider_instance \
     14 only_verify_leaf_cert_crl 15 match_typed_subject_alt_names 16 max_verify_depth \
     17 system_root_certs 18 suppress_client_ca_list",
);

pub(super) const DOWNSTREAM_TLS: Schema = Schema(
    "DownstreamTlsContext",
    "1 common_tls_context 2 require_client_certificate 3 require_sni 4 session_ticket_keys \
     5 session_ticket_keys_sds_secret_config 6 session_timeout \
     7 disable_stateless_session_resumption 8 ocsp_staple_policy \
     9 full_scan_certs_on_sni_mismatch 10 disable_stateful_session_resumption \
     11 prefer_client_ciphers",
);

pub(super) const TLS_CERTIFICATE: Schema = Schema(
    "tls_certificate",
    "1 certificate_chain 2 private_key 3 password 4 ocsp_staple \
     5 signed_certificate_timestamp 6 private_key_provider 7 watched_directory 8 pkcs12 \
     9 tls_params",
);

pub(super) const TLS_PARAMS: Schema = Schema(
    "tls_params",
    "1 tls_minimum_protocol_version 2 tls_maximum_protocol_version 3 cipher_suites \
     4 ecdh_curves 5 signature_algorithms",
);

pub(super) const SECRET: Schema = Schema(
    "secret",
    "1 name 2 tls_certificate 3 session_ticket_keys 4 validation_context 5 generic_secret",
);

pub(super) const SDS_SECRET: Schema = Schema("sds_secret_config", "1 name 2 sds_config");

pub(super) const COMBINED: Schema = Schema(
    "combined_validation_context",
    "1 default_validation_context 2 validation_context_sds_secret_config \
     3 validation_context_certificate_provider \
     4 validation_context_certificate_provider_instance",
);
