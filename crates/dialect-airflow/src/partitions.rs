//! Which partitions of a DAG an asset's partition belongs to, by the mappers of its timetable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use kobza_model::{Json, Timestamp};
use kobza_triggers::{EventBody, Held, Mapped, PartitionMapping, TriggerEvent};
use serde::Deserialize;
use serde_json::json;

use crate::schedule::{CustomTimetables, topic};
use crate::timetable::{AssetCondition, Timetable};

/// The mapper that leaves keys as they are: nobody has to be asked.
const IDENTITY: &str = "airflow.partition_mappers.identity.IdentityMapper";

/// The mapping of one DAG.
pub(crate) struct DagPartitions {
    /// As serialised.
    timetable: Json,
    /// Name and URI of its assets, by the names that they have here.
    assets: BTreeMap<String, (String, String)>,
    /// All mappers leave keys as they are.
    identity: bool,
    custom: Option<Arc<dyn CustomTimetables>>,
}

impl fmt::Debug for DagPartitions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DagPartitions({:?})", self.assets)
    }
}

#[derive(Deserialize)]
struct Answer {
    key: String,
    /// URIs.
    complete: Vec<String>,
    date: Option<Timestamp>,
}

impl DagPartitions {
    pub(crate) fn open(
        definition: &Json,
        custom: Option<Arc<dyn CustomTimetables>>,
    ) -> Result<Self, String> {
        let timetable = &definition["timetable"];
        let parsed = Timetable::parse(timetable).map_err(|error| error.to_string())?;
        let Timetable::PartitionedAsset { assets, mappers, default_mapper } = parsed else {
            return Err("the timetable has no partitions of assets".to_owned());
        };
        let is_identity = |mapper: &Json| {
            mapper["__type"] == IDENTITY
                && mapper["__var"].as_object().is_none_or(serde_json::Map::is_empty)
        };
        let mut own = mappers.as_array().into_iter().flatten();
        let identity = is_identity(&default_mapper) && own.all(|pair| is_identity(&pair[1]));
        let name_and_uri = |leaf: &AssetCondition| match leaf {
            AssetCondition::Asset(asset) => (asset.name.clone(), asset.uri.clone()),
            AssetCondition::NameRef(name) => {
                let uri = definition["assets"][name].as_str().unwrap_or(name);
                (name.clone(), uri.to_owned())
            }
            AssetCondition::UriRef(uri) => (String::new(), uri.clone()),
            _ => (String::new(), String::new()),
        };
        let leaves = assets.leaves().into_iter().map(|leaf| {
            let (name, uri) = name_and_uri(leaf);
            let place = if uri.is_empty() { topic(leaf) } else { crate::ids::asset_name(&uri) };
            (place, (name, uri))
        });
        let assets = leaves.collect();
        Ok(Self { timetable: timetable.clone(), assets, identity, custom })
    }
}

impl PartitionMapping for DagPartitions {
    fn map(
        &self,
        event: &TriggerEvent,
        held: &Held,
    ) -> Result<Result<Vec<Mapped>, String>, String> {
        let EventBody::Asset { asset, partition: Some(key), metadata, .. } = &event.body else {
            return Ok(Ok(Vec::new()));
        };
        let date: Option<Timestamp> =
            metadata["partition_date"].as_str().and_then(|text| text.parse().ok());
        if self.identity {
            let known = held.get(key).into_iter().flat_map(BTreeMap::keys);
            let complete: BTreeSet<String> = known.chain([asset]).cloned().collect();
            let complete = complete.into_iter().collect();
            return Ok(Ok(vec![Mapped { key: key.clone(), complete, date }]));
        }
        let Some(custom) = &self.custom else {
            return Err("its partition mappers are asked in Python, and none is set up".to_owned());
        };
        let Some((name, uri)) = self.assets.get(asset) else { return Ok(Ok(Vec::new())) };
        // Python knows assets by their URIs.
        let place = |topic: &str| self.assets.get(topic).map_or(topic, |(_, uri)| uri).to_owned();
        let held: BTreeMap<&String, BTreeMap<String, &Vec<String>>> = held
            .iter()
            .map(|(target, assets)| {
                (target, assets.iter().map(|(topic, keys)| (place(topic), keys)).collect())
            })
            .collect();
        let names: BTreeMap<&String, &String> =
            self.assets.values().map(|(name, uri)| (uri, name)).collect();
        let question = json!({
            "op": "partition", "timetable": self.timetable, "name": name, "uri": uri, "key": key,
            "partition_date": date, "held": held, "names": names,
        });
        let answer = match custom.partition(question)? {
            Ok(answer) => answer,
            Err(problem) => return Ok(Err(problem)),
        };
        let answers = Vec::<Answer>::deserialize(&answer).map_err(|e| e.to_string())?;
        let topic = |uri: &String| {
            let found = self.assets.iter().find(|(_, (_, own))| own == uri);
            found.map_or_else(|| crate::ids::asset_name(uri), |(topic, _)| topic.clone())
        };
        let mapped = answers.into_iter().map(|answer| Mapped {
            key: answer.key,
            complete: answer.complete.iter().map(topic).collect(),
            date: answer.date,
        });
        Ok(Ok(mapped.collect()))
    }
}
