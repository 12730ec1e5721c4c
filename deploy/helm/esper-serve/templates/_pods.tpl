{{/* Fields of every pod: what the standard "restricted" asks for. */}}
{{- define "esper.podBasics" -}}
serviceAccountName: {{ include "esper.name" (list . "pods") }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "esper.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* Replicas of a component on different hosts, where there are enough. */}}
{{- define "esper.spread" -}}
topologySpreadConstraints:
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "esper.selector" . | nindent 6 }}
{{- end -}}

{{/* Flags that server, followers and the MPI learner share. */}}
{{- define "esper.serverArgs" -}}
- --address=0.0.0.0:{{ .Values.ports.serve }}
{{- if .Values.security.adminListener }}
- --admin_address=0.0.0.0:{{ .Values.ports.admin }}
{{- end }}
- --health_address=0.0.0.0:{{ .Values.ports.health }}
- --metrics_address=0.0.0.0:{{ .Values.ports.metrics }}
- --max_connections={{ .Values.server.maxConnections }}
- --log_level={{ .Values.logLevel }}
- --log_format=json
{{- if .Values.security.insecure }}
- --insecure
{{- else }}
- --tls_cert_file=/etc/esper/tls/tls.crt
- --tls_key_file=/etc/esper/tls/tls.key
- --tls_client_ca_file=/etc/esper/tls/ca.crt
- --access_file=/etc/esper/access/access.json
{{- end }}
{{- if .Values.security.stateKeySecret }}
- --state_key_file=/etc/esper/state_key/key
{{- end }}
{{- end -}}

{{- define "esper.serverMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if not .Values.security.insecure }}
- {name: tls, mountPath: /etc/esper/tls, readOnly: true}
- {name: access, mountPath: /etc/esper/access, readOnly: true}
{{- end }}
{{- if .Values.security.stateKeySecret }}
- {name: state-key, mountPath: /etc/esper/state_key, readOnly: true}
{{- end }}
{{- end -}}

{{/* Secrets are files, so that the server sees them change. */}}
{{- define "esper.serverVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 64Mi}
{{- if not .Values.security.insecure }}
- name: tls
  secret: {secretName: {{ .Values.security.tlsSecret }}, defaultMode: 0440}
- name: access
  secret: {secretName: {{ .Values.security.accessSecret }}, defaultMode: 0440}
{{- end }}
{{- if .Values.security.stateKeySecret }}
- name: state-key
  secret: {secretName: {{ .Values.security.stateKeySecret }}, defaultMode: 0440}
{{- end }}
{{- end -}}

{{/* The configuration of those that learn; followers take it from the server. */}}
{{- define "esper.configArg" -}}
- --config=/etc/esper/config/training_config.json
{{- end -}}

{{- define "esper.configMount" -}}
- {name: config, mountPath: /etc/esper/config, readOnly: true}
{{- end -}}

{{- define "esper.configVolume" -}}
- name: config
  configMap: {name: {{ include "esper.configName" . }}}
{{- end -}}

{{/* Flags, mount and volume of a client's own certificate. */}}
{{- define "esper.clientTlsArgs" -}}
{{- if not .Values.security.insecure -}}
- --tls_ca_file=/etc/esper/tls/ca.crt
- --tls_cert_file=/etc/esper/tls/tls.crt
- --tls_key_file=/etc/esper/tls/tls.key
{{- end -}}
{{- end -}}

{{- define "esper.clientTlsMount" -}}
{{- if not .Values.security.insecure -}}
- {name: tls, mountPath: /etc/esper/tls, readOnly: true}
{{- end -}}
{{- end -}}

{{/* (list . secretName) */}}
{{- define "esper.clientTlsVolume" -}}
{{- if not (index . 0).Values.security.insecure -}}
- name: tls
  secret: {secretName: {{ index . 1 }}, defaultMode: 0440}
{{- end -}}
{{- end -}}

{{- define "esper.serverPorts" -}}
- {name: serve, containerPort: {{ .Values.ports.serve }}}
{{- if .Values.security.adminListener }}
- {name: admin, containerPort: {{ .Values.ports.admin }}}
{{- end }}
- {name: health, containerPort: {{ .Values.ports.health }}}
- {name: metrics, containerPort: {{ .Values.ports.metrics }}}
{{- end -}}

{{/* The kubelet cannot probe a port that asks for client certificates, so the
     health port has none. "liveness" answers after the server has called its
     own main listener; it depends on no queue and on no peer. */}}
{{- define "esper.probes" -}}
startupProbe:
  grpc: {port: {{ .Values.ports.health }}, service: liveness}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 60
readinessProbe:
  grpc: {port: {{ .Values.ports.health }}, service: readiness}
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 2
livenessProbe:
  grpc: {port: {{ .Values.ports.health }}, service: liveness}
  periodSeconds: 10
  timeoutSeconds: 2
  failureThreshold: 6
{{- end -}}

{{/* Endpoints are removed while SIGTERM is on its way: keep serving for a
     while. The kubelet sleeps, no shell is needed. */}}
{{- define "esper.preStop" -}}
lifecycle:
  preStop: {sleep: {seconds: {{ .Values.shutdown.preStopSeconds }}}}
{{- end -}}
