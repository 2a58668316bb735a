{{- /* The rights of sources.kubernetes in a namespace. It changes nothing but the status. */ -}}
{{- define "ringway.rules" }}
- apiGroups: [""]
  resources: [services{{ if .Values.kubernetes.secrets }}, secrets{{ end }}]
  verbs: [get, list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch]
- apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io]
  resources:
  - virtualservices
  - destinationrules
  - serviceentries
  - workloadentries
  - gateways
  - peerauthentications
  - requestauthentications
  - authorizationpolicies
  - telemetries
  verbs: [get, list, watch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
  - gateways
  - httproutes
  - grpcroutes
  - referencegrants
  verbs: [get, list, watch]
{{- if .Values.kubernetes.status }}
- apiGroups: [networking.istio.io, security.istio.io, telemetry.istio.io]
  resources:
  - virtualservices/status
  - destinationrules/status
  - serviceentries/status
  - workloadentries/status
  - gateways/status
  - peerauthentications/status
  - requestauthentications/status
  - authorizationpolicies/status
  - telemetries/status
  verbs: [update, patch]
- apiGroups: [gateway.networking.k8s.io]
  resources:
  - gateways/status
  - httproutes/status
  - grpcroutes/status
  verbs: [update, patch]
{{- end }}
{{- end }}
