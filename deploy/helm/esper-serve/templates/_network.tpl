{{/* What the default-deny policy lets in to the pods of a component that serves.
     The kubelet's probes come from the node, which network plugins let in. */}}
{{- define "esper.serverPolicy" -}}
{{- $root := index . 0 -}}
{{- $ports := $root.Values.ports -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "esper.name" . }}
  labels: {{- include "esper.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "esper.selector" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
  # What a caller may do is decided by its certificate or token.
  - from:
    - podSelector: {matchLabels: {esper-serve/calls-server: "true"}}
    ports: [{port: {{ $ports.serve }}}]
  {{- if $root.Values.security.adminListener }}
  - from:
    - podSelector: {matchLabels: {esper-serve/operates: "true"}}
    ports: [{port: {{ $ports.admin }}}]
  {{- end }}
  - from:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: {{ $root.Values.networkPolicy.metricsNamespace }}}
    ports: [{port: {{ $ports.metrics }}}]
{{- end -}}
