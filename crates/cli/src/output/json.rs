//! Protobuf messages as JSON with the field names of the .proto files: every field
//! is there, bytes are hexadecimal, enum values lose their prefix, 64-bit integers
//! are numbers.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, Kind, MapKey, ReflectMessage, Value,
};
use serde_json::{Map, Value as Json, json};

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(quorate_proto::FILE_DESCRIPTOR_SET).ok());

/// A message of package `quorate.v1` by its name.
pub(crate) fn message_json(name: &str, message: &impl Message) -> Json {
    POOL.as_ref()
        .and_then(|pool| pool.get_message_by_name(&format!("quorate.v1.{name}")))
        .and_then(|descriptor| DynamicMessage::decode(descriptor, &*message.encode_to_vec()).ok())
        .map_or(Json::Null, |message| object(&message))
}

fn object(message: &DynamicMessage) -> Json {
    let mut map = Map::new();
    for field in message.descriptor().fields() {
        // Of a oneof only the member that is set says anything.
        if field.containing_oneof().is_some() && !message.has_field(&field) {
            continue;
        }
        let is_message = matches!(field.kind(), Kind::Message(_));
        let json =
            if is_message && !field.is_list() && !field.is_map() && !message.has_field(&field) {
                Json::Null
            } else {
                value(&message.get_field(&field), &field.kind())
            };
        map.insert(field.name().to_owned(), json);
    }
    Json::Object(map)
}

fn value(found: &Value, kind: &Kind) -> Json {
    match found {
        Value::Bool(x) => json!(x),
        Value::I32(x) => json!(x),
        Value::I64(x) => json!(x),
        Value::U32(x) => json!(x),
        Value::U64(x) => json!(x),
        Value::F32(x) => json!(x),
        Value::F64(x) => json!(x),
        Value::String(x) => json!(x),
        Value::Bytes(x) => json!(hex::encode(x)),
        Value::EnumNumber(number) => match kind {
            Kind::Enum(descriptor) => enum_name(descriptor, *number),
            _ => json!(number),
        },
        Value::Message(message) => object(message),
        Value::List(items) => items.iter().map(|item| value(item, kind)).collect(),
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|(key, item)| (map_key(key), value(item, kind)));
            Json::Object(entries.collect())
        }
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(x) => x.to_string(),
        MapKey::I32(x) => x.to_string(),
        MapKey::I64(x) => x.to_string(),
        MapKey::U32(x) => x.to_string(),
        MapKey::U64(x) => x.to_string(),
        MapKey::String(x) => x.clone(),
    }
}

/// `BALLOT_STATE_CONFIRMED` of `BallotState` is `CONFIRMED`; the prefix is that of
/// the value 0, as the style guide asks.
fn enum_name(descriptor: &EnumDescriptor, number: i32) -> Json {
    let zero = descriptor.default_value();
    let prefix = zero.name().strip_suffix("UNSPECIFIED").unwrap_or_default();
    match descriptor.get_value(number) {
        Some(known) => json!(known.name().strip_prefix(prefix).unwrap_or(known.name())),
        None => json!(number),
    }
}

#[cfg(test)]
mod tests {
    use quorate_wire::v1;

    use super::*;

    #[test]
    fn fields_keep_their_names_and_are_always_there() {
        let json = message_json("Ballot", &v1::Ballot::default());
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        // Scripts rely on these: add, never rename.
        let mut expected = [
            "tx_id",
            "state",
            "since_ms",
            "opened_ms",
            "rules",
            "tally",
            "trustees",
            "votes_missing",
            "reachable",
            "any_reachable",
            "started",
            "deadline_ms",
            "value",
            "submission",
            "violations",
            "reason",
            "revision",
            "path",
        ];
        let mut names: Vec<_> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(json["state"], "UNSPECIFIED");
        assert_eq!(json["value"], Json::Null);
    }

    #[test]
    fn values_are_readable_and_exact() {
        let ballot = v1::Ballot {
            state: v1::BallotState::AbortedByzantine.into(),
            value: Some(v1::Choice {
                kind: Some(v1::choice::Kind::Number(u64::MAX)),
            }),
            tally: vec![v1::Tally {
                value: Some(v1::Choice {
                    kind: Some(v1::choice::Kind::Data(vec![0xde, 0xad])),
                }),
                count: 2,
            }],
            ..Default::default()
        };
        let json = message_json("Ballot", &ballot);
        assert_eq!(json["state"], "ABORTED_BYZANTINE");
        assert_eq!(json["value"], json!({ "number": u64::MAX }));
        assert_eq!(json["tally"][0]["value"], json!({ "data": "dead" }));
        assert_eq!(json["tally"][0]["count"], 2);
    }
}
