{{- define "s3-log-rollup.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* A CronJob's name has at most 52 characters, and the pods of an Indexed Job append up to 18 to it, of 63. A longer one ends
in a hash of the whole: two buckets whose names begin alike must not share a CronJob. */}}
{{- define "s3-log-rollup.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- $full = .Values.fullnameOverride | default $full -}}
{{- if gt (len $full) 45 -}}
{{- $full = printf "%s-%s" ($full | trunc 36 | trimSuffix "-") ($full | sha256sum | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "s3-log-rollup.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace -}}
{{- end -}}

{{- define "s3-log-rollup.selectorLabels" -}}
app.kubernetes.io/name: {{ include "s3-log-rollup.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Takes a dict of the root, and of the labels that the object has beside what all have. */}}
{{- define "s3-log-rollup.labels" -}}
{{- $own := include "s3-log-rollup.selectorLabels" .root | fromYaml -}}
{{- $rest := dict "app.kubernetes.io/version" .root.Chart.AppVersion "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $rest "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- toYaml (merge $own (.labels | default dict) (.root.Values.commonLabels | default dict) $rest) -}}
{{- end -}}

{{/* Takes a dict of the root, the object's name, and labels and annotations of its own. */}}
{{- define "s3-log-rollup.metadata" -}}
name: {{ .name }}
namespace: {{ include "s3-log-rollup.namespace" .root }}
labels:
  {{- include "s3-log-rollup.labels" . | nindent 2 }}
{{- with merge (dict) (.annotations | default dict) (.root.Values.commonAnnotations | default dict) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "s3-log-rollup.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "s3-log-rollup.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end -}}

{{- define "s3-log-rollup.image" -}}
{{- with .Values.image -}}
{{- with .registry }}{{ . }}/{{ end }}{{ .repository }}
{{- if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* Whether a value is set: false and 0 are. */}}
{{- define "s3-log-rollup.isSet" -}}
{{- if not (or (kindIs "invalid" .) (eq (toString .) "")) -}}yes{{- end -}}
{{- end -}}

{{/* A large number of a values file comes as 1e+06. */}}
{{- define "s3-log-rollup.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end -}}

{{/* One name and value of the environment, where the value is set. Takes a list of both. */}}
{{- define "s3-log-rollup.variable" -}}
{{- if include "s3-log-rollup.isSet" (last .) }}
- name: {{ first . }}
  value: {{ include "s3-log-rollup.text" (last .) | quote }}
{{- end }}
{{- end -}}

{{- define "s3-log-rollup.schedule" -}}
{{- $minute := mod (printf "%s/%s" .Release.Namespace .Release.Name | sha256sum | adler32sum | int64) 60 -}}
{{- .Values.schedule | default (printf "%d * * * *" $minute) -}}
{{- end -}}

{{- define "s3-log-rollup.caConfigMap" -}}
{{- .Values.aws.caBundle.configMap | default (printf "%s-ca" (include "s3-log-rollup.fullname" .)) -}}
{{- end -}}

{{/* What the schema cannot say. */}}
{{- define "s3-log-rollup.check" -}}
{{- $source := required "rollup.source is not set: it takes s3://bucket/prefix, where the log objects are" .Values.rollup.source -}}
{{- $destination := required "rollup.destination is not set: it takes s3://bucket/prefix, where the rollups go" .Values.rollup.destination -}}
{{- with .Values.aws.caBundle }}
{{- if gt (len (compact (list .configMap .secret .inline))) 1 }}
{{- fail "aws.caBundle takes one of configMap, secret and inline" }}
{{- end }}
{{- end }}
{{- if and .Values.aws.roleArn (not .Values.serviceAccount.create) }}
{{- fail "aws.roleArn annotates the ServiceAccount that the chart makes: with serviceAccount.create=false, annotate your own and leave aws.roleArn empty" }}
{{- end }}
{{- end -}}
