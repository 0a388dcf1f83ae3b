//! The asset events of a task that has succeeded.

use kobza_model::Json;
use kobza_runtime::Published;
use serde_json::json;

use super::requests::AssetProfile;

/// What a task publishes: each outlet that is an asset once, or as often as the task attached
/// events to it; and what it published by way of an alias.
///
/// The asset of a [`Published`] is its URI. A reference by name or URI alone stands for the asset
/// that the server knows by it, so it is left to the reader of the metadata.
#[must_use]
pub(super) fn published(
    outlets: &[AssetProfile],
    events: &[Json],
    partition: Option<&str>,
    date: &Json,
) -> Vec<Published> {
    let mut all = Vec::new();
    for outlet in outlets {
        match outlet.kind.as_deref() {
            Some("Asset") => {}
            Some("AssetNameRef" | "AssetUriRef") => {
                let place = outlet.uri.as_ref().or(outlet.name.as_ref());
                let Some(place) = place else { continue };
                let metadata =
                    json!({"name": outlet.name, "uri": outlet.uri, "extra": {}, "ref": true});
                all.push(one(place, partition, &metadata, date));
                continue;
            }
            // An alias publishes only through its events.
            _ => continue,
        }
        let (Some(name), Some(uri)) = (&outlet.name, &outlet.uri) else { continue };
        let attached: Vec<&Json> = events
            .iter()
            .filter(|event| {
                let key = &event["dest_asset_key"];
                event.get("source_alias_name").is_none()
                    && key["name"] == *name.as_str()
                    && key["uri"] == *uri.as_str()
            })
            .collect();
        if attached.is_empty() {
            let metadata = json!({"name": name, "uri": uri, "extra": {}});
            all.push(one(uri, partition, &metadata, date));
        }
        for event in attached {
            let own = event.get("partition_key").and_then(Json::as_str).or(partition);
            let metadata = json!({"name": name, "uri": uri, "extra": event["extra"]});
            all.push(one(uri, own, &metadata, date));
        }
    }
    let aliases: Vec<&str> = outlets
        .iter()
        .filter(|o| o.kind.as_deref() == Some("AssetAlias"))
        .filter_map(|o| o.name.as_deref())
        .collect();
    for event in events {
        let Some(alias) = event.get("source_alias_name").and_then(Json::as_str) else { continue };
        let key = &event["dest_asset_key"];
        let (Some(name), Some(uri)) = (key["name"].as_str(), key["uri"].as_str()) else { continue };
        if aliases.contains(&alias) {
            let metadata = json!({"name": name, "uri": uri, "extra": event["extra"], "aliases": [alias], "asset_extra": event["dest_asset_extra"]});
            all.push(one(uri, partition, &metadata, date));
            // Who looks for the alias finds it under its name.
            let metadata = json!({"name": name, "uri": uri, "extra": event["extra"], "alias": alias, "asset_extra": event["dest_asset_extra"]});
            all.push(one(alias, partition, &metadata, date));
        }
    }
    all
}

fn one(asset: &str, partition: Option<&str>, metadata: &Json, date: &Json) -> Published {
    let mut metadata = metadata.clone();
    if date.is_string() {
        metadata["partition_date"] = date.clone();
    }
    Published {
        asset: crate::ids::asset_name(asset),
        partition: partition.map(str::to_owned),
        metadata: metadata.to_string(),
    }
}
