//! Documents of the binary against `docs/output.schema.json`. CI compares them with a validator of JSON Schema, too.
//!
//! This check is stricter than the schema: a member that the schema does not describe is an error, so that none is
//! forgotten. It knows the keywords that the schema uses, and no other.

use std::sync::LazyLock;

use serde_json::Value;

static SCHEMA: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("../../docs/output.schema.json")).unwrap());

/// Asserts that a document is as the schema says.
pub fn assert_described(document: &Value) {
    let errors = errors(&SCHEMA, document, "");
    assert!(
        errors.is_empty(),
        "docs/output.schema.json does not describe this document: {}\n{document:#}",
        errors.join("\n")
    );
}

/// The differences of a value from a schema. `at` is its place in the document.
fn errors(schema: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (keyword, rule) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                found.extend(errors(&SCHEMA["$defs"][name], value, at));
            }
            "type" if !is_of_type(rule, value) => found.push(format!("{at} is no {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                found.push(format!("{at} is {value}, and none of {rule}"));
            }
            "const" if rule != value => found.push(format!("{at} is {value}, and not {rule}")),
            "minimum"
                if value
                    .as_f64()
                    .is_some_and(|value| Some(value) < rule.as_f64()) =>
            {
                found.push(format!("{at} < {rule}"));
            }
            "type" | "enum" | "const" | "minimum" => {}
            "required" => {
                let names = rule.as_array().unwrap().iter().filter_map(Value::as_str);
                let missing = names.filter(|name| value.get(*name).is_none());
                found.extend(missing.map(|name| format!("{at}.{name} is missing")));
            }
            "properties" | "additionalProperties" => {
                found.extend(errors_of_members(schema, keyword, value, at));
            }
            "items" => {
                for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(errors(rule, item, &format!("{at}[{i}]")));
                }
            }
            "anyOf" | "oneOf" => found.extend(errors_of_choice(rule, value, at)),
            other => panic!("the check of the schema does not know the keyword {other}"),
        }
    }
    found
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type"),
    };
    match rule {
        Value::String(name) => is(name),
        names => names
            .as_array()
            .unwrap()
            .iter()
            .any(|name| is(name.as_str().unwrap())),
    }
}

fn errors_of_members(schema: &Value, keyword: &str, value: &Value, at: &str) -> Vec<String> {
    let mut found = Vec::new();
    let properties = schema.get("properties");
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}.{name}");
        let described = properties.and_then(|properties| properties.get(name));
        match (keyword, described, schema.get("additionalProperties")) {
            ("properties", Some(rule), _) => found.extend(errors(rule, member, &at)),
            ("properties", None, None) => found.push(format!("{at} is not described")),
            ("additionalProperties", None, Some(rule)) if !rule.is_boolean() => {
                found.extend(errors(rule, member, &at));
            }
            _ => {}
        }
    }
    found
}

/// The errors of the choice that is meant: the one with the fewest.
fn errors_of_choice(choices: &Value, value: &Value, at: &str) -> Vec<String> {
    let choices = choices.as_array().unwrap().iter();
    let mut all: Vec<Vec<String>> = choices.map(|choice| errors(choice, value, at)).collect();
    all.sort_by_key(Vec::len);
    match all.iter().filter(|errors| errors.is_empty()).count() {
        0 | 1 => all.swap_remove(0),
        n => vec![format!("{at} is {n} of the choices at once")],
    }
}

#[test]
fn what_is_not_described_is_found() {
    let usage = |error: Value| {
        serde_json::json!({"command": null, "exit": 2, "outcome": "failed", "error": error, "seconds": 0.1,
                           "commits": []})
    };
    let error = serde_json::json!({"code": "usage", "message": "m", "remedy": "r"});
    let found = |document: &Value| errors(&SCHEMA, document, "").join("; ");
    assert_eq!(found(&usage(error.clone())), "");
    let mut odd = error.clone();
    odd["odd"] = 1.into();
    assert_eq!(found(&usage(odd)), ".error.odd is not described");
    let mut wrong = error.clone();
    wrong["code"] = "oops".into();
    assert!(found(&usage(wrong)).contains(".error.code is \"oops\", and none of"));
    let mut short = usage(error);
    short.as_object_mut().unwrap().remove("commits");
    assert_eq!(found(&short), ".commits is missing");
    short["commits"] = serde_json::json!(["1"]);
    assert_eq!(found(&short), ".commits[0] is no \"integer\"");
}
