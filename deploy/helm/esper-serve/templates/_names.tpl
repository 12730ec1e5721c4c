{{/* Name of an object of one component: (list . "server") */}}
{{- define "esper.name" -}}
{{- $root := index . 0 -}}
{{- printf "%s-%s" ($root.Release.Name | trunc 40 | trimSuffix "-") (index . 1) -}}
{{- end -}}

{{/* Labels by which selectors find the pods of one component. */}}
{{- define "esper.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: esper-serve
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "esper.labels" -}}
{{- $root := index . 0 -}}
{{ include "esper.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Values.managedBy | default $root.Release.Service }}
{{- end -}}

{{- define "esper.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "esper.configJson" -}}
{{ .Values.config.training | toPrettyJson }}
{{- end -}}

{{/* The digest in the name restarts the pods that read a changed file. */}}
{{- define "esper.configName" -}}
{{- if .Values.config.existingName -}}
{{ .Values.config.existingName }}
{{- else -}}
{{ include "esper.name" (list . "config") }}-{{ include "esper.configJson" . | sha256sum | trunc 10 }}
{{- end -}}
{{- end -}}

{{/* Episodes live in one pod, so clients use its own name. Without a namespace
     it works in any; certificates must name it so. */}}
{{- define "esper.serverAddress" -}}
{{- if .Values.trainingMpi.enabled -}}
{{ include "esper.name" (list . "training") }}:{{ .Values.ports.serve }}
{{- else -}}
{{ include "esper.name" (list . "server") }}-0.{{ include "esper.name" (list . "server-pods") }}:{{ .Values.ports.serve }}
{{- end -}}
{{- end -}}

{{- define "esper.coordinatorAddress" -}}
{{ include "esper.name" (list . "trainer") }}-0.{{ include "esper.name" (list . "trainer") }}:{{ .Values.ports.coordinator }}
{{- end -}}

{{/* How a Service describes the main listener to meshes and gateways. */}}
{{- define "esper.appProtocol" -}}
{{ if .Values.security.insecure }}kubernetes.io/h2c{{ else }}https{{ end }}
{{- end -}}
