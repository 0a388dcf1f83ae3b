//! What of a leaf's pod comes from elsewhere: environments, volumes, credentials.

use kobza_model::Json;
use kobza_runtime::Facts;
use serde_json::{Map, json};

use crate::launch::{ArgoSettings, Mount, fail};
use crate::values::config_value;

/// Each container of a template, for reading or changing.
fn containers(template: &mut Json) -> Vec<&mut Json> {
    let mut found = Vec::new();
    let Some(fields) = template.as_object_mut() else { return found };
    for (key, value) in fields {
        match key.as_str() {
            "container" | "script" => found.push(value),
            "sidecars" | "initContainers" => {
                found.extend(value.as_array_mut().into_iter().flatten());
            }
            "containerSet" => {
                let list = value.get_mut("containers").and_then(Json::as_array_mut);
                found.extend(list.into_iter().flatten());
            }
            _ => {}
        }
    }
    found
}

/// The pod that a task would be.
pub(crate) struct PodFields<'a> {
    pub(crate) name: &'a str,
    pub(crate) facts: &'a dyn Facts,
}

impl PodFields<'_> {
    /// A field by the path that a `fieldRef` names.
    fn field(&self, path: &str) -> Option<String> {
        let run = self.facts.run();
        Some(match path {
            "metadata.name" => self.name.to_owned(),
            "metadata.namespace" => run.namespace.clone(),
            "metadata.uid" => run.run.to_string(),
            "spec.nodeName" => "localhost".to_owned(),
            "spec.serviceAccountName" => "default".to_owned(),
            "status.podIP" | "status.hostIP" => "127.0.0.1".to_owned(),
            _ => return None,
        })
    }
}

/// Replaces references to ConfigMaps and Secrets in environments by their values.
pub(crate) fn environment(
    template: &mut Json,
    facts: &dyn Facts,
    pod: &PodFields<'_>,
    secrets: &mut Vec<String>,
) -> Result<(), String> {
    for container in containers(template) {
        let mut resolved = Vec::new();
        for source in container["envFrom"].as_array().into_iter().flatten() {
            for (field, kind) in [("configMapRef", "configmap"), ("secretRef", "secret")] {
                let Some(name) = source[field]["name"].as_str() else { continue };
                let prefix = source["prefix"].as_str().unwrap_or("");
                let Some(map) = facts.lookup(kind, name) else {
                    if source[field]["optional"].as_bool().unwrap_or(false) {
                        continue;
                    }
                    return fail(format!("{kind} {name:?} not found"));
                };
                let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
                for key in data.as_object().into_iter().flat_map(Map::keys) {
                    let reference = json!({ "name": name, "key": key });
                    if let Some(value) = config_value(facts, kind, &reference) {
                        if kind == "secret" {
                            secrets.push(value.clone());
                        }
                        resolved.push(json!({ "name": format!("{prefix}{key}"), "value": value }));
                    }
                }
            }
        }
        for variable in container["env"].as_array().into_iter().flatten() {
            let from = &variable["valueFrom"];
            let (kind, reference) = match (&from["configMapKeyRef"], &from["secretKeyRef"]) {
                (r @ Json::Object(_), _) => ("configmap", r),
                (_, r @ Json::Object(_)) => ("secret", r),
                _ => {
                    let field = from["fieldRef"]["fieldPath"].as_str();
                    match field.and_then(|field| pod.field(field)) {
                        Some(value) => {
                            resolved.push(json!({ "name": variable["name"], "value": value }));
                        }
                        // Other fields of a pod have no meaning without one.
                        None if variable.get("value").is_some() => resolved.push(variable.clone()),
                        None => {}
                    }
                    continue;
                }
            };
            match config_value(facts, kind, reference) {
                Some(value) => {
                    if kind == "secret" {
                        secrets.push(value.clone());
                    }
                    resolved.push(json!({ "name": variable["name"], "value": value }));
                }
                None if reference["optional"].as_bool().unwrap_or(false) => {}
                None => {
                    return fail(format!(
                        "couldn't find key {} in {kind} {}",
                        reference["key"], reference["name"]
                    ));
                }
            }
        }
        if !resolved.is_empty() {
            container["env"] = Json::Array(resolved);
        }
    }
    Ok(())
}

/// The volumes that containers mount, as folders.
pub(crate) fn mounts(
    template: &Json,
    facts: &dyn Facts,
    settings: &ArgoSettings,
    secrets: &mut Vec<String>,
) -> Result<Vec<Mount>, String> {
    let mut wanted: Vec<String> = Vec::new();
    let mut copy = template.clone();
    for container in containers(&mut copy) {
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().unwrap_or_default();
            if !wanted.iter().any(|w| w == name) {
                wanted.push(name.to_owned());
            }
        }
    }
    let mut mounts = Vec::new();
    for name in wanted {
        let volumes = template["volumes"].as_array();
        let volume = volumes.into_iter().flatten().find(|v| v["name"] == *name);
        let Some(volume) = volume else {
            return fail(format!("volume '{name}' not found in workflow spec"));
        };
        if name.contains(['/', '\\', '\0']) || name.contains("..") {
            return fail(format!("volume name {name:?} is invalid"));
        }
        let mut mount = Mount { volume: name.clone(), folder: None, files: Vec::new() };
        let of_run = || settings.volumes.join(facts.run().run.to_string());
        if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
            if claim.contains(['/', '\\', '\0']) || claim.contains("..") {
                return fail(format!("claim name {claim:?} is invalid"));
            }
            // A claim of the workflow's own lives with the run; any other with the namespace.
            let templates = &facts.workflow().source["spec"]["volumeClaimTemplates"];
            let own = templates
                .as_array()
                .is_some_and(|all| all.iter().any(|t| t["metadata"]["name"] == claim));
            mount.folder = Some(if own {
                of_run().join(claim)
            } else {
                settings.volumes.join("claims").join(&facts.run().namespace).join(claim)
            });
        } else if volume["configMap"].is_object() || volume["secret"].is_object() {
            let (kind, source) = if volume["secret"].is_object() {
                ("secret", &volume["secret"])
            } else {
                ("configmap", &volume["configMap"])
            };
            let object = source["secretName"].as_str().or(source["name"].as_str());
            let object = object.unwrap_or_default();
            let Some(map) = facts.lookup(kind, object) else {
                if source["optional"].as_bool().unwrap_or(false) {
                    mounts.push(mount);
                    continue;
                }
                return fail(format!("{kind} {object:?} not found"));
            };
            let data = map.get("data").filter(|d| d.is_object()).unwrap_or(&map);
            for key in data.as_object().into_iter().flat_map(Map::keys) {
                let reference = json!({ "name": object, "key": key });
                if let Some(value) = config_value(facts, kind, &reference) {
                    if kind == "secret" {
                        secrets.push(value.clone());
                    }
                    let item = source["items"].as_array().map(|items| {
                        items.iter().find(|i| i["key"] == **key).and_then(|i| i["path"].as_str())
                    });
                    match item {
                        Some(Some(path)) => mount.files.push((path.to_owned(), value)),
                        Some(None) => {}
                        None => mount.files.push((key.clone(), value)),
                    }
                }
            }
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

/// Values of the secrets that artifacts and headers refer to.
pub(crate) fn credentials(
    template: &Json,
    artifacts: &Map<String, Json>,
    repository: &Json,
    facts: &dyn Facts,
    secrets: &mut Vec<String>,
) -> Map<String, Json> {
    fn walk(
        json: &Json,
        facts: &dyn Facts,
        out: &mut Map<String, Json>,
        secrets: &mut Vec<String>,
    ) {
        match json {
            Json::Object(fields) => {
                if let (Some(Json::String(name)), Some(Json::String(key))) =
                    (fields.get("name"), fields.get("key"))
                    && let Some(value) = config_value(facts, "secret", json)
                {
                    secrets.push(value.clone());
                    out.insert(format!("{name}/{key}"), Json::String(value));
                }
                fields.values().for_each(|v| walk(v, facts, out, secrets));
            }
            Json::Array(items) => items.iter().for_each(|v| walk(v, facts, out, secrets)),
            _ => {}
        }
    }
    let mut out = Map::new();
    walk(&template["http"], facts, &mut out, secrets);
    walk(&template["inputs"]["artifacts"], facts, &mut out, secrets);
    walk(&template["outputs"]["artifacts"], facts, &mut out, secrets);
    walk(&template["data"]["source"], facts, &mut out, secrets);
    walk(repository, facts, &mut out, secrets);
    for artifact in artifacts.values() {
        walk(artifact, facts, &mut out, secrets);
    }
    out
}
