//! `envelope tag`: sets and removes tags.

use std::collections::BTreeMap;

use registry::Reference;

use crate::args::Tag;
use crate::commands::ls::tags;
use crate::error::Error;
use crate::wiring::Wiring;

pub(crate) async fn tag(wiring: &Wiring, args: &Tag) -> Result<(), Error> {
    let changes = changes(&args.changes)?;
    let reference: Reference = args.envelope.reference.parse()?;
    let registry = wiring.registry().await?;
    let version = registry.resolve(&reference).await?;
    let version = registry.set_tags(&version.digest, &changes).await?;
    registry.close().await;
    let terminal = &wiring.terminal;
    if terminal.json() {
        return terminal.document(&version);
    }
    terminal.print(&format!(
        "{}:{}  {}\n",
        version.name,
        version.version,
        tags(&version.tags)
    ))
}

/// `key=value` sets, `key-` removes; of two changes of one tag the last one counts.
fn changes(texts: &[String]) -> Result<BTreeMap<String, Option<String>>, Error> {
    let change = |text: &String| match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => Ok((key.to_owned(), Some(value.to_owned()))),
        (None, Some(key)) => Ok((key.to_owned(), None)),
        (None, None) => Err(Error::NoTagChange {
            change: text.clone(),
        }),
    };
    texts.iter().map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_equals_sign_sets_and_a_trailing_dash_removes() {
        let texts = ["a=1", "b=x-", "c-", "d=", "e=f=g"].map(str::to_owned);
        let expected = [
            ("a", Some("1")),
            ("b", Some("x-")),
            ("c", None),
            ("d", Some("")),
            ("e", Some("f=g")),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.map(str::to_owned)));
        assert_eq!(changes(&texts).unwrap(), expected.into());
        assert!(changes(&["a".to_owned()]).is_err());
    }
}
