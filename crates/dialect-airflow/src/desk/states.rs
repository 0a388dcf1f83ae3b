//! What tasks and assets remember between runs of their code.

use kobza_model::Json;
use kobza_runtime::{Submission, wall_now};
use kobza_store::{ObjectQuery, Write, kinds};
use serde_json::json;

use super::{Asker, Desk};
use crate::task::{Refused, Request, StateKey};

impl Desk {
    pub(super) fn state_store(
        &self,
        asker: Asker,
        namespace: &str,
        request: Request,
    ) -> Result<Json, Refused> {
        let task = format!("task_state/{}/", asker.launch.task_id());
        let asset = |state: &StateKey| {
            let name = match (&state.name, &state.uri) {
                (Some(name), _) => self.asset_of(namespace, Some(name), None)?,
                (None, uri) => self.asset_of(namespace, None, uri.as_deref())?,
            };
            let name = name.ok_or_else(|| Refused::api(404, "there is no such asset"))?;
            Ok::<_, Refused>(format!("asset_state/{}/", name["name"].as_str().unwrap_or_default()))
        };
        match request {
            Request::GetTaskStateStore(state) => {
                let found = self.state(namespace, &format!("{task}{}", state.key))?;
                let body = |value| json!({"type": "TaskStateStoreResult", "value": value});
                let missing =
                    || Refused::not_found("TASK_STORE_NOT_FOUND", json!({"key": state.key})).body();
                Ok(found.map_or_else(missing, body))
            }
            Request::SetTaskStateStore(state) => self.set_state(namespace, &task, state),
            Request::DeleteTaskStateStore(state) => {
                self.drop_states(namespace, &[format!("{task}{}", state.key)])
            }
            Request::ClearTaskStateStore {} => self.clear_states(namespace, &task),
            Request::GetAssetStateStoreByName(state) | Request::GetAssetStateStoreByUri(state) => {
                let found = self.state(namespace, &format!("{}{}", asset(&state)?, state.key))?;
                let body = |value| json!({"type": "AssetStateStoreResult", "value": value});
                let missing = || {
                    Refused::not_found("ASSET_STORE_NOT_FOUND", json!({"key": state.key})).body()
                };
                Ok(found.map_or_else(missing, body))
            }
            Request::SetAssetStateStoreByName(state) | Request::SetAssetStateStoreByUri(state) => {
                let prefix = asset(&state)?;
                self.set_state(namespace, &prefix, state)
            }
            Request::DeleteAssetStateStoreByName(state)
            | Request::DeleteAssetStateStoreByUri(state) => {
                self.drop_states(namespace, &[format!("{}{}", asset(&state)?, state.key)])
            }
            Request::ClearAssetStateStoreByName(state)
            | Request::ClearAssetStateStoreByUri(state) => {
                self.clear_states(namespace, &asset(&state)?)
            }
            _ => Err(Refused::api(400, "not a request of a state store")),
        }
    }

    fn state(&self, namespace: &str, key: &str) -> Result<Option<Json>, Refused> {
        let Some(object) = self.store.object(kinds::AIRFLOW_OBJECT, namespace, key)? else {
            return Ok(None);
        };
        let expires = object["expires_at"].as_str().and_then(|at| at.parse().ok());
        let over = expires.is_some_and(|at: kobza_model::Timestamp| at <= wall_now());
        Ok((!over).then(|| object["value"].clone()))
    }

    fn set_state(&self, namespace: &str, prefix: &str, state: StateKey) -> Result<Json, Refused> {
        let value = json!({"value": state.value, "expires_at": state.expires_at});
        self.put(kinds::AIRFLOW_OBJECT, namespace, &format!("{prefix}{}", state.key), Some(value))?;
        Ok(json!({"type": "OKResponse", "ok": true}))
    }

    fn clear_states(&self, namespace: &str, prefix: &str) -> Result<Json, Refused> {
        let (mut keys, mut cursor) = (Vec::new(), None::<String>);
        loop {
            let page = self.views.list_objects(&ObjectQuery {
                kind: kinds::AIRFLOW_OBJECT,
                namespace: Some(namespace),
                prefix,
                descending: false,
                cursor: cursor.as_deref(),
                limit: 1000,
            })?;
            keys.extend(page.items.into_iter().map(|object| object.key));
            match page.next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        self.drop_states(namespace, &keys)
    }

    fn drop_states(&self, namespace: &str, keys: &[String]) -> Result<Json, Refused> {
        let write = |key: &String| Write::PutObject {
            kind: kinds::AIRFLOW_OBJECT,
            namespace: namespace.to_owned(),
            key: key.clone(),
            value: None,
        };
        let writes = keys.iter().map(write).collect();
        self.handle.submit_blocking(Submission { commands: Vec::new(), writes })?;
        Ok(json!({"type": "OKResponse", "ok": true}))
    }
}
