//! The artifact repository of a workflow: where artifacts go that name no place of their own.
//!
//! It is configured as Argo's: an entry of the ConfigMap `artifact-repositories` (or of the one that
//! `artifactRepositoryRef` names), chosen by key or by the map's annotation. Without one it is the
//! server's own folder.

use std::sync::Arc;

use kobza_model::Json;
use serde_json::json;

/// The ConfigMap that is looked at when a workflow names none.
const DEFAULT_MAP: &str = "artifact-repositories";
/// The annotation of that map which names the entry for workflows that name none.
const DEFAULT_KEY: &str = "workflows.argoproj.io/default-artifact-repository";
/// Where keys begin when a repository does not say.
const KEY_FORMAT: &str = "{{workflow.name}}/{{pod.name}}";

/// Kinds of repositories that are known and not reached from here.
const OTHER_CLOUDS: &[&str] = &["gcs", "azure", "oss", "hdfs", "artifactory", "plugin"];

/// A repository, as it is configured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Repository {
    /// Bucket, endpoint and secrets; null: the server's own folder.
    pub(crate) s3: Json,
    /// The beginning of the keys of a node, with tags; none: the server's own.
    pub(crate) key_format: Option<String>,
    pub(crate) archive_logs: bool,
    /// `status.artifactRepositoryRef`.
    pub(crate) shown: Json,
}

/// A ConfigMap of the workflow's namespace.
pub(crate) type Maps<'a> = dyn Fn(&str) -> Option<Arc<Json>> + 'a;

impl Repository {
    /// The repository of a workflow's spec. A map that is not there stands for the server's folder.
    pub(crate) fn of(spec: &Json, maps: &Maps<'_>) -> Result<Self, String> {
        let reference = &spec["artifactRepositoryRef"];
        let name = reference["configMap"].as_str().unwrap_or(DEFAULT_MAP);
        let Some(map) = maps(name) else {
            return Ok(Self { shown: json!({ "default": true }), ..Self::default() });
        };
        let key = reference["key"]
            .as_str()
            .or(map["metadata"]["annotations"][DEFAULT_KEY].as_str())
            .unwrap_or_default();
        if key.is_empty() {
            return Ok(Self { shown: json!({ "default": true }), ..Self::default() });
        }
        let wrong = |what: String| format!("ConfigMap {name:?}, key {key:?}: {what}");
        let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
        let text = data[key]
            .as_str()
            .ok_or_else(|| wrong("there is no such artifact repository".into()))?;
        let read: Json =
            serde_saphyr::from_str(text).map_err(|e| wrong(e.without_snippet().to_string()))?;
        if let Some(cloud) = OTHER_CLOUDS.iter().find(|cloud| read.get(**cloud).is_some()) {
            return Err(wrong(format!("repositories of kind {cloud} are not reached from here")));
        }
        let mut s3 = read["s3"].clone();
        let mut key_format = None;
        if let Some(fields) = s3.as_object_mut() {
            let prefix = fields.shift_remove("keyPrefix");
            key_format = match (fields.shift_remove("keyFormat"), prefix) {
                (Some(Json::String(format)), _) if !format.is_empty() => Some(format),
                (_, Some(Json::String(prefix))) if !prefix.is_empty() => {
                    Some(format!("{}/{KEY_FORMAT}", prefix.trim_end_matches('/')))
                }
                _ => Some(KEY_FORMAT.to_owned()),
            };
            for field in ["bucket", "endpoint"] {
                if fields.get(field).and_then(Json::as_str).is_none_or(str::is_empty) {
                    return Err(wrong(format!("s3.{field} is required")));
                }
            }
        }
        Ok(Self {
            archive_logs: read["archiveLogs"].as_bool().unwrap_or(false),
            shown: json!({ "configMap": name, "key": key, "artifactRepository": read }),
            s3,
            key_format,
        })
    }

    /// Where the outputs of a template go: its own `archiveLocation`, where that is a place.
    pub(crate) fn of_template(mut self, template: &Json) -> Self {
        let own = &template["archiveLocation"];
        if has_place(&own["s3"]) {
            self.s3 = own["s3"].clone();
            let key = self.s3.as_object_mut().and_then(|fields| fields.shift_remove("key"));
            self.key_format = key.and_then(|k| k.as_str().map(str::to_owned)).or(self.key_format);
        }
        if let Some(logs) = own["archiveLogs"].as_bool() {
            self.archive_logs = logs;
        }
        self
    }
}

/// Whether an S3 location says where its bucket is; a key alone lies in the repository.
pub(crate) fn has_place(s3: &Json) -> bool {
    ["endpoint", "bucket"].iter().all(|field| s3[*field].as_str().is_some_and(|v| !v.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_found_by_reference_annotation_or_default() {
        let map = Arc::new(json!({
            "metadata": { "annotations": { DEFAULT_KEY: "main" } },
            "data": {
                "main": "s3: {bucket: b, endpoint: 'e:9000', keyFormat: 'x/{{workflow.name}}'}",
                "old": "archiveLogs: true\ns3: {bucket: b, endpoint: e, keyPrefix: p/}",
                "bare": "s3: {bucket: b}", "cloud": "gcs: {bucket: b}", "bad": "s3: [",
            },
        }));
        let of =
            |spec: Json| Repository::of(&spec, &|name| (name == DEFAULT_MAP).then(|| map.clone()));
        let found = of(json!({})).expect("the default");
        assert_eq!(found.s3, json!({ "bucket": "b", "endpoint": "e:9000" }));
        assert_eq!(found.key_format.as_deref(), Some("x/{{workflow.name}}"));
        let found = of(json!({ "artifactRepositoryRef": { "key": "old" } })).expect("by key");
        assert_eq!(found.key_format.as_deref(), Some("p/{{workflow.name}}/{{pod.name}}"));
        assert!(found.archive_logs);
        for (key, part) in
            [("bare", "s3.endpoint"), ("cloud", "gcs"), ("bad", "\"bad\""), ("none", "no such")]
        {
            let error = of(json!({ "artifactRepositoryRef": { "key": key } })).expect_err(key);
            assert!(error.contains(part), "{error}");
        }
        let elsewhere = of(json!({ "artifactRepositoryRef": { "configMap": "no", "key": "k" } }));
        assert_eq!(elsewhere.expect("the folder").s3, Json::Null);
    }

    #[test]
    fn a_template_may_have_a_place_of_its_own() {
        let template = json!({ "archiveLocation": { "archiveLogs": true,
            "s3": { "bucket": "t", "endpoint": "e", "key": "k/{{pod.name}}" } } });
        let found = Repository::default().of_template(&template);
        assert_eq!(found.s3, json!({ "bucket": "t", "endpoint": "e" }));
        assert_eq!(found.key_format.as_deref(), Some("k/{{pod.name}}"));
        let key_only = json!({ "archiveLocation": { "s3": { "key": "k" } } });
        assert_eq!(Repository::default().of_template(&key_only), Repository::default());
    }
}
