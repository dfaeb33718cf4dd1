//! What to say when nothing was found: the nearest that there is.

use std::path::Path;

use sqlx::SqlitePool;

use crate::{Error, Reference, TagQuery, versions};

/// How many similar names are offered.
const MAX_NAMES: usize = 3;

/// Why `reference` means no version of the store in `root`.
pub(crate) async fn explain(
    rows: &SqlitePool,
    root: &Path,
    reference: &Reference,
) -> Result<Error, Error> {
    let names = versions::names(rows).await?;
    let hint = match reference {
        _ if names.is_empty() => format!("the store in `{}` is empty", root.display()),
        Reference::Path(_) => "this envelope was not saved here: import it first".to_owned(),
        Reference::Digest(_) | Reference::DigestPrefix(_) => {
            format!(
                "no envelope with this digest was saved in `{}`",
                root.display()
            )
        }
        Reference::Latest(name) => near(name, &names),
        Reference::Numbered { name, .. } => match latest(rows, name).await? {
            Some(1) => format!("`{name}` has only version 1"),
            Some(last) => format!("`{name}` has versions 1 to {last}"),
            None => near(name, &names),
        },
        Reference::Query(query) => unmatched(rows, query).await?,
    };
    Ok(Error::NotFound {
        reference: reference.to_string(),
        hint,
    })
}

async fn latest(rows: &SqlitePool, name: &str) -> Result<Option<u64>, Error> {
    let found = versions::find(rows, &TagQuery::named(name), usize::MAX).await?;
    Ok(found.iter().map(|version| version.version).max())
}

/// The first requirement that matches nothing even alone.
async fn unmatched(rows: &SqlitePool, query: &TagQuery) -> Result<String, Error> {
    for part in query.parts() {
        if versions::find(rows, &part, 1).await?.is_empty() {
            return Ok(format!("no version matches `{part}`"));
        }
    }
    Ok("each requirement matches some version, but no version matches all of them".to_owned())
}

fn near(wanted: &str, names: &[String]) -> String {
    let mut similar: Vec<_> = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(distance, name)| *distance <= wanted.len().min(name.len()).div_ceil(3))
        .collect();
    similar.sort();
    let offered = similar.iter().map(|(_, name)| *name).take(MAX_NAMES);
    match list(offered) {
        Some(offered) => format!("did you mean {offered}?"),
        None => format!(
            "there is {}",
            list(names.iter().take(MAX_NAMES)).unwrap_or_default()
        ),
    }
}

fn list<'n>(names: impl Iterator<Item = &'n String>) -> Option<String> {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    (!quoted.is_empty()).then(|| quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_offered_nearest_first() {
        let names = ["ltv_model", "ltv_model_2", "churn"].map(str::to_owned);
        assert_eq!(
            near("ltv_modle", &names),
            "did you mean `ltv_model`, `ltv_model_2`?"
        );
        assert_eq!(near("fraud", &names[2..]), "there is `churn`");
    }
}
