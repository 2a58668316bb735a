{{- define "ringway.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "ringway.fullname" -}}
{{- $name := include "ringway.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ringway.selector" -}}
app.kubernetes.io/name: {{ include "ringway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.mode }}
{{- end -}}

{{- define "ringway.labels" -}}
{{ include "ringway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "ringway.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ringway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* The name of the ConfigMap and of the Secret. */ -}}
{{- define "ringway.configName" -}}
{{- if eq .Values.mode "sidecar" -}}{{ .Values.sidecar.name }}{{- else -}}{{ include "ringway.fullname" . }}{{- end -}}
{{- end -}}

{{- /* The configuration of the mode, with the admin interface for the probes of the kubelet. */ -}}
{{- define "ringway.config" -}}
{{- $own := (index .Values .Values.mode).config -}}
{{- $address := .Values.admin.address | replace "::" "[::]" -}}
{{- $admin := dict "bind" (printf "%s:%d" $address (int .Values.admin.port)) "token" "admin.token" -}}
{{- $made := dict "admin" $admin -}}
{{- if and .Values.kubernetes.enabled (ne .Values.mode "sidecar") -}}
{{- $source := dict "kubeconfig" "auto" "secrets" .Values.kubernetes.secrets -}}
{{- with .Values.kubernetes.namespaces }}{{- $_ := set $source "namespaces" . }}{{- end -}}
{{- $_ := set $made "sources" (dict "kubernetes" $source "cache" "/var/lib/ringway") -}}
{{- end -}}
{{- merge (deepCopy $own) $made | toYaml -}}
{{- end -}}

{{- /* The pod of the modes gateway and node. */ -}}
{{- define "ringway.pod" -}}
{{- $mode := index .Values .Values.mode -}}
{{- $low := false -}}
{{- range $mode.ports }}{{- if lt (int .containerPort) 1024 }}{{- $low = true }}{{- end }}{{- end -}}
metadata:
  labels:
    {{- include "ringway.selector" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    ringway.io/inject: "false"
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "ringway.serviceAccount" . }}
  automountServiceAccountToken: {{ .Values.kubernetes.enabled }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if $mode.hostNetwork }}
  hostNetwork: true
  dnsPolicy: ClusterFirstWithHostNet
  {{- end }}
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1337
    runAsGroup: 1337
    fsGroup: 1337
    seccompProfile:
      {{- toYaml .Values.seccompProfile | nindent 6 }}
    {{- if and $low (not $mode.hostNetwork) }}
    sysctls:
    - name: net.ipv4.ip_unprivileged_port_start
      value: "0"
    {{- end }}
  containers:
  - name: ringway
    image: {{ printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) | quote }}
    imagePullPolicy: {{ .Values.image.pullPolicy }}
    args: [run, --config, /etc/ringway]
    env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
    - name: POD_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    - name: POD_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    - name: NODE_NAME
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
    - name: SERVICE_ACCOUNT
      valueFrom: {fieldRef: {fieldPath: spec.serviceAccountName}}
    - name: STATE_DIRECTORY
      value: /var/lib/ringway
    {{- with .Values.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    ports:
    {{- range $mode.ports }}
    - name: {{ .name }}
      containerPort: {{ .containerPort }}
      protocol: {{ default "TCP" .protocol }}
      {{- with .hostPort }}
      hostPort: {{ . }}
      {{- end }}
    {{- end }}
    - name: admin
      containerPort: {{ .Values.admin.port }}
      protocol: TCP
    startupProbe:
      httpGet: {path: /ready, port: admin}
      periodSeconds: 1
      failureThreshold: 60
    readinessProbe:
      httpGet: {path: /ready, port: admin}
      periodSeconds: 5
      timeoutSeconds: 3
    livenessProbe:
      httpGet: {path: /live, port: admin}
      periodSeconds: 10
      timeoutSeconds: 5
    {{- with .Values.preStopSeconds }}
    lifecycle:
      preStop:
        sleep:
          seconds: {{ . }}
    {{- end }}
    resources:
      {{- toYaml .Values.resources | nindent 6 }}
    securityContext:
      privileged: false
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
        {{- with .Values.capabilities }}
        add:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    volumeMounts:
    - name: config
      mountPath: /etc/ringway
      readOnly: true
    - name: state
      mountPath: /var/lib/ringway
    {{- range $index, $name := .Values.secrets }}
    - name: secret-{{ $index }}
      mountPath: /etc/ringway-secrets/{{ $name }}
      readOnly: true
    {{- end }}
  volumes:
  # One directory. A key that everybody can read is refused, so its group can.
  - name: config
    projected:
      defaultMode: 288
      sources:
      - configMap: {name: {{ include "ringway.configName" . }}}
      - secret: {name: {{ include "ringway.configName" . }}}
  - name: state
    emptyDir: {sizeLimit: 64Mi}
  {{- range $index, $name := .Values.secrets }}
  - name: secret-{{ $index }}
    secret: {secretName: {{ $name }}, defaultMode: 288}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /* The ports of the Service. */ -}}
{{- define "ringway.servicePorts" -}}
{{- range (index .Values .Values.mode).ports }}
- name: {{ .name }}
  port: {{ default .containerPort .servicePort }}
  targetPort: {{ .name }}
  protocol: {{ default "TCP" .protocol }}
{{- end }}
{{- end -}}
