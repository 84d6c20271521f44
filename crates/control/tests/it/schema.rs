//! Checks answers against `crates/api/schema.json`, the schema of heroku/platform-api (MIT licence).
//!
//! The schema is a hyper-schema: its links say which answer belongs to which request. On top of what JSON Schema checks,
//! `strictProperties` of a definition means here that an answer holds all of its properties and no others. Where the
//! official client, or being another platform, wins over the schema, it is in [`DIFFERENCES`] and [`ADDITIONS`] and
//! nowhere else.

use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex},
};

use http::Method;
use jsonschema::{Draft, Validator};
use serde_json::{Map, Value, json};

use crate::api::Answer;

/// What is taken out of the schema, and why.
const DIFFERENCES: &[(&str, &str)] = &[
    // The git host is the operator's, not git.heroku.com.
    ("/definitions/app/definitions/git_url/pattern", "pattern"),
    // Apps answer below the operator's domain.
    ("/definitions/app/definitions/web_url/pattern", "pattern"),
    // The schema calls a host name a URI; the client prints it as it is.
    ("/definitions/domain/definitions/hostname/format", "format"),
];

/// What answers have beside what is in the schema, because the official client reads it.
const ADDITIONS: &[(&str, &str, &str)] = &[
    // `apps:info` shows it when it is something else than this.
    ("/definitions/app/properties", "create_status", r#"{"enum": ["complete"]}"#),
];

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let text = include_str!("../../../api/schema.json");
    let mut schema: Value = serde_json::from_str(text).expect("the schema is JSON");
    for (pointer, member) in DIFFERENCES {
        let parent = pointer.strip_suffix(&format!("/{member}")).expect("a pointer to the member");
        let parent = schema.pointer_mut(parent).and_then(Value::as_object_mut).expect(pointer);
        parent.remove(*member).expect("the difference is one");
    }
    for (pointer, member, addition) in ADDITIONS {
        let parent = schema.pointer_mut(pointer).and_then(Value::as_object_mut).expect(pointer);
        let addition = serde_json::from_str(addition).expect("JSON");
        assert!(parent.insert((*member).to_owned(), addition).is_none(), "{member} is in the schema");
    }
    // Ids and dialects of parts would change what `#/definitions/…` means.
    let definitions = schema["definitions"].as_object_mut().expect("definitions");
    for definition in definitions.values_mut().filter_map(Value::as_object_mut) {
        definition.remove("$schema");
        if definition.get("id").is_some_and(Value::is_string) {
            definition.remove("id");
        }
    }
    schema
});

static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Checks one answer of the API.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let status = answer.status.as_u16();
    assert!(answer.headers.contains_key("request-id"), "{method} {path}: no Request-Id");
    if status >= 400 {
        return check_error(method, path, answer);
    }
    if status == 304 || answer.header("content-type") != Some("application/json") {
        return;
    }
    let Some((pointer, link)) = link(method, path) else { return };
    let target = link.get("targetSchema").map_or(json!({"$ref": format!("#{pointer}")}), Clone::clone);
    let target = if link["rel"] == "instances" && target.get("items").is_none() {
        json!({"type": ["array"], "items": target})
    } else {
        target
    };
    let validator = validator(&target);
    let errors: Vec<String> =
        validator.iter_errors(&answer.json).map(|error| format!("{} at {}", error, error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {path}: {errors:#?}\n{}", answer.text);
    check_strict(&format!("{method} {path}"), &target, &answer.json);
}

fn check_error(method: &Method, path: &str, answer: &Answer) {
    let what = format!("{method} {path}: {}", answer.text);
    let body = answer.json.as_object().expect(&what);
    for key in ["id", "message"] {
        assert!(body.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty()), "{what}");
    }
    let known = ["id", "message", "resource", "url"];
    assert!(body.keys().all(|key| known.contains(&key.as_str())), "{what}");
    assert!(body["id"].as_str().is_some_and(|id| id.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{what}");
    assert_eq!(answer.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(answer.status.as_u16() == 404, body["id"] == "not_found", "{what}");
}

/// The link that a request belongs to: the one with the most literal parts.
fn link(method: &Method, path: &str) -> Option<(String, &'static Value)> {
    let parts: Vec<&str> = path.split('/').collect();
    let mut best: Option<(usize, String, &'static Value)> = None;
    for (name, definition) in SCHEMA["definitions"].as_object()? {
        for link in definition["links"].as_array().into_iter().flatten() {
            let href: Vec<&str> = link["href"].as_str()?.split('/').collect();
            let fits = |(wanted, part): (&&str, &&str)| wanted.starts_with('{') || wanted == part;
            if link["method"] != method.as_str() || href.len() != parts.len() || !href.iter().zip(&parts).all(fits) {
                continue;
            }
            let literal = href.iter().filter(|part| !part.starts_with('{')).count();
            if best.as_ref().is_none_or(|(most, ..)| literal > *most) {
                best = Some((literal, format!("/definitions/{name}"), link));
            }
        }
    }
    best.map(|(_, pointer, link)| (pointer, link))
}

fn validator(target: &Value) -> &'static Validator {
    let mut validators = VALIDATORS.lock().expect("no test panics here");
    validators.entry(target.to_string()).or_insert_with(|| {
        let mut schema = target.as_object().cloned().unwrap_or_default();
        if let Some(reference) = schema.remove("$ref") {
            schema.insert("allOf".to_owned(), json!([{"$ref": reference}]));
        }
        schema.insert("definitions".to_owned(), SCHEMA["definitions"].clone());
        let options = jsonschema::options().with_draft(Draft::Draft4).should_validate_formats(true);
        let validator = options.build(&Value::Object(schema)).expect("a schema");
        Box::leak(Box::new(validator))
    })
}

fn resolve(schema: &Value) -> &Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => resolve(SCHEMA.pointer(reference.trim_start_matches('#')).expect("a known reference")),
        None => schema,
    }
}

fn check_strict(what: &str, schema: &Value, value: &Value) {
    let schema = resolve(schema);
    match value {
        Value::Array(values) => {
            let items = schema.get("items").cloned().unwrap_or_default();
            values.iter().for_each(|value| check_strict(what, &items, value));
        }
        Value::Object(members) => {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
            if schema["strictProperties"] == true {
                let missing: Vec<&String> = properties.keys().filter(|key| !members.contains_key(*key)).collect();
                assert!(missing.is_empty(), "{what}: without {missing:?}: {value}");
                check_surplus(what, properties, members);
            }
            for (key, value) in members {
                if let Some(property) = properties.get(key) {
                    check_strict(what, property, value);
                }
            }
        }
        _ => {}
    }
}

fn check_surplus(what: &str, properties: &Map<String, Value>, members: &Map<String, Value>) {
    let surplus: Vec<&String> = members.keys().filter(|key| !properties.contains_key(*key)).collect();
    assert!(surplus.is_empty(), "{what}: not in the schema: {surplus:?}");
}

#[test]
fn an_answer_against_the_schema_is_noticed() {
    let headers = [("request-id", "x"), ("content-type", "application/json")];
    let headers = headers.into_iter().map(|(k, v)| (k.parse().expect("a name"), v.parse().expect("a value"))).collect();
    let json = json!({"remaining": "many"});
    let answer = Answer { status: http::StatusCode::OK, headers, text: json.to_string(), json };
    let wrong = std::panic::catch_unwind(|| check(&Method::GET, "/account/rate-limits", &answer));
    assert!(wrong.is_err());
}
