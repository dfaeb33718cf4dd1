//! What a wheel says about its own files.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Content, Refusal, refuse};

/// Signatures of `RECORD`, which cannot be in it.
const UNLISTED: [&str; 3] = ["RECORD", "RECORD.jws", "RECORD.p7s"];

/// Parts of an environment that are not for packages to write.
const INTERPRETER: [&str; 5] = ["bin", "lib", "lib64", "include", "pyvenv.cfg"];

/// The folder of a wheel that describes it: `NAME-VERSION.dist-info`.
pub(super) fn information_folder(file: &str) -> Result<String, Refusal> {
    let parts: Vec<_> = file
        .strip_suffix(".whl")
        .unwrap_or_default()
        .split('-')
        .collect();
    if !matches!(parts.len(), 5 | 6) || parts.iter().any(|part| part.is_empty()) {
        return refuse(
            "8.4",
            "is not called `NAME-VERSION-PYTHON-ABI-PLATFORM.whl`",
        );
    }
    Ok(format!("{}-{}.dist-info", parts[0], parts[1]))
}

/// Rules 8.4 and 8.5.
pub(super) fn check(files: &BTreeMap<&str, Content>, information: &str) -> Result<(), Refusal> {
    let folders = files.keys().filter_map(|name| name.split_once('/'));
    let described: BTreeSet<_> = folders
        .map(|(folder, _)| folder)
        .filter(|folder| folder.ends_with(".dist-info"))
        .collect();
    if described.into_iter().collect::<Vec<_>>() != [information] {
        return refuse(
            "8.4",
            format!("does not have `{information}` and no other such folder"),
        );
    }
    for file in ["WHEEL", "METADATA"] {
        text(files, information, file)?;
    }
    check_record(files, information)?;
    check_programs(files, information)
}

/// Every file is listed with its digest and size, and nothing else is.
fn check_record(files: &BTreeMap<&str, Content>, information: &str) -> Result<(), Refusal> {
    let mut listed = BTreeSet::new();
    for line in text(files, information, "RECORD")?
        .lines()
        .filter(|line| !line.is_empty())
    {
        let Some((path, digest, size)) = fields(line) else {
            return refuse("8.4", "has a `RECORD` that cannot be read");
        };
        let Some(content) = files.get(path.as_str()) else {
            return refuse(
                "8.4",
                format!("lists `{}`, which it does not have", path.escape_debug()),
            );
        };
        let says = (digest.to_owned(), size.to_owned());
        if !is_unlisted(&path, information) && says != truth(content) {
            return refuse("8.4", format!("lists another digest or size of `{path}`"));
        }
        if !listed.insert(path.clone()) {
            return refuse("8.4", format!("lists `{path}` twice"));
        }
    }
    let missing = files
        .keys()
        .find(|name| !listed.contains(**name) && !is_unlisted(name, information));
    match missing {
        None => Ok(()),
        Some(name) => refuse("8.4", format!("does not list `{name}`")),
    }
}

/// Path, digest and size. Only the path is ever in quotes.
fn fields(line: &str) -> Option<(String, &str, &str)> {
    let (rest, size) = line.rsplit_once(',')?;
    let (path, digest) = rest.rsplit_once(',')?;
    let quoted = path
        .strip_prefix('"')
        .and_then(|path| path.strip_suffix('"'));
    let path = quoted.map_or_else(|| path.to_owned(), |path| path.replace("\"\"", "\""));
    Some((path, digest, size))
}

fn truth(content: &Content) -> (String, String) {
    let digest = URL_SAFE_NO_PAD.encode(content.digest.0);
    (format!("sha256={digest}"), content.size.to_string())
}

fn is_unlisted(name: &str, information: &str) -> bool {
    name.strip_prefix(information)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|file| UNLISTED.contains(&file))
}

/// Rule 8.5: an environment's interpreter is not what a wheel makes it.
fn check_programs(files: &BTreeMap<&str, Content>, information: &str) -> Result<(), Refusal> {
    let data = information.replace(".dist-info", ".data");
    for name in files.keys() {
        let Some((kind, path)) = name
            .strip_prefix(&format!("{data}/"))
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let first = path.split('/').next().unwrap_or_default().to_lowercase();
        let replaces = match kind {
            "scripts" => first.starts_with("python"),
            "data" => INTERPRETER.contains(&first.as_str()),
            _ => false,
        };
        if replaces {
            return refuse("8.5", format!("writes `{name}` over the interpreter"));
        }
    }
    let programs = match files.get(format!("{information}/entry_points.txt").as_str()) {
        Some(content) => String::from_utf8_lossy(&content.bytes).into_owned(),
        None => return Ok(()),
    };
    let mut names = program_names(&programs);
    match names.find(|name| name.to_lowercase().starts_with("python")) {
        None => Ok(()),
        Some(name) => refuse(
            "8.5",
            format!("has a program called `{}`", name.escape_debug()),
        ),
    }
}

/// The keys of the two sections of which programs are made.
fn program_names(entry_points: &str) -> impl Iterator<Item = &str> {
    let mut is_of_programs = false;
    entry_points.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with('[') {
            is_of_programs = matches!(line, "[console_scripts]" | "[gui_scripts]");
        }
        let key = line.split_once('=')?.0.trim();
        is_of_programs.then_some(key)
    })
}

fn text<'c>(
    files: &'c BTreeMap<&str, Content>,
    information: &str,
    file: &str,
) -> Result<&'c str, Refusal> {
    let content = files.get(format!("{information}/{file}").as_str());
    match content.map(|content| std::str::from_utf8(&content.bytes)) {
        Some(Ok(text)) => Ok(text),
        Some(Err(_)) => refuse("8.4", format!("has a `{file}` that is not UTF-8")),
        None => refuse("8.4", format!("has no `{file}`")),
    }
}
