//! Whatever a model was made with, its service looks the same.

use serde_json::Value;

use crate::amount;
use crate::served::Served;

/// Names in `tests/frameworks.py`, and of the packages that they need. The first ones make a short test.
const FRAMEWORKS: [&str; 11] = [
    "plain",
    "pandas",
    "polars",
    "numpy",
    "pyarrow",
    "sklearn",
    "scipy",
    "lightgbm",
    "xgboost",
    "statsmodels",
    "torch",
];

/// What an operator and a client have to know of a service.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    routes: Vec<String>,
    flags: String,
    metrics: Vec<String>,
}

impl Look {
    fn of(served: &Served) -> Self {
        let openapi: Value = serde_json::from_str(&served.get("/openapi.json")).unwrap();
        let paths = openapi["paths"].as_object().unwrap();
        let routes = paths.iter().flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().keys();
            methods.map(move |method| format!("{method} {path}"))
        });
        let metrics = served.get("/metrics");
        let metrics = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "));
        Self {
            routes: routes.collect(),
            flags: served.help(),
            metrics: metrics.map(str::to_owned).collect(),
        }
    }
}

#[test]
fn services_look_the_same_whatever_their_models_were_made_with() {
    let wanted = usize::try_from(amount("FRAMEWORKS", 3)).unwrap();
    let is_there = |name: &&&str| **name == "plain" || acceptance::has_package(name);
    let there: Vec<_> = FRAMEWORKS.iter().filter(is_there).take(wanted).collect();
    assert_eq!(there.len(), wanted, "only {there:?} are installed");
    let look = |name: &&&str| {
        let served = Served::of(&acceptance::framework_path(name), &["--workers", "1"]);
        Look::of(&served)
    };
    let looks: Vec<_> = there.iter().map(look).collect();
    let first = &looks[0];
    println!(
        "{there:?}: {} routes, {} metrics, {} lines about flags",
        first.routes.len(),
        first.metrics.len(),
        first.flags.lines().count()
    );
    for (name, look) in there.iter().zip(&looks) {
        assert_eq!(look, first, "{name} and {}", there[0]);
    }
    assert!(
        first.routes.len() > 10 && first.metrics.len() > 10 && first.flags.contains("--workers")
    );
}
