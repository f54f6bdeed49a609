//! Holds the OpenAPI document to the routes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::OPENAPI;

/// Sources with routes of the API.
const SOURCES: [&str; 2] = [include_str!("../admin.rs"), include_str!("dashboard.rs")];

/// Paths with their methods, as the routers have them; without the page and its files.
fn routes() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    for rest in SOURCES
        .iter()
        .flat_map(|text| text.split(".route(").skip(1))
    {
        // The page's files have their paths in a list.
        let Some(path) = rest
            .trim_start()
            .strip_prefix('"')
            .and_then(|p| p.split('"').next())
        else {
            continue;
        };
        // A route ends before the next call of the chain, which stands in its own line.
        let handlers = rest.split("\n        .").next().expect("handlers");
        for method in ["get", "post"] {
            let called = |mark: &str| handlers.contains(&format!("{mark}{method}("));
            if called(" ") || called(".") || called("\n") {
                found.insert((path.to_owned(), method.to_owned()));
            }
        }
    }
    found.retain(|(path, _)| path != "/" && !path.starts_with("/dashboard."));
    found
}

/// Aim: each route is in the document, and nothing else. Fails if a route or a method is added to one of them
/// only. Source: issue 15 §9.
#[test]
fn the_document_has_the_routes() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut told = BTreeSet::new();
    for (path, methods) in paths {
        for (method, operation) in methods.as_object().expect("methods") {
            told.insert((path.clone(), method.clone()));
            let is_open = super::probes::OPEN.contains(&path.as_str());
            let needs_token = operation["responses"]["401"].is_object();
            assert_eq!(needs_token, !is_open, "{method} {path}");
            let named = path.split('{').skip(1).filter_map(|p| p.split('}').next());
            let given = operation["parameters"].as_array();
            for name in named {
                let is = |p: &Value| p["name"] == name && p["in"] == "path";
                assert!(
                    given.is_some_and(|all| all.iter().any(is)),
                    "{name} of {path}"
                );
            }
        }
    }
    assert_eq!(told, routes());
    assert!(told.len() > 15, "{told:?}");
}

/// Aim: each reference of the document leads somewhere. Fails if a schema is renamed.
#[test]
fn references_lead_somewhere() {
    let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
    for rest in OPENAPI.split("\"$ref\": \"#").skip(1) {
        let path = rest.split('"').next().expect("a path");
        assert!(document.pointer(path).is_some(), "{path}");
    }
}
