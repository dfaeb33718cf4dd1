//! What this process and everything it starts may open, from now on.

use std::path::PathBuf;

/// Files and folders that may be opened.
#[derive(Debug, Default)]
pub(crate) struct View {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
}

impl View {
    /// From arguments `r=PATH` (to read and execute) and `w=PATH` (for everything).
    pub(crate) fn from_arguments(arguments: &[String]) -> Self {
        let paths = |kind| {
            let paths = arguments.iter().filter_map(|text| text.strip_prefix(kind));
            paths.map(PathBuf::from).collect()
        };
        Self {
            read: paths("r="),
            write: paths("w="),
        }
    }

    /// Confines this process; gives how well the kernel does it: `landlock`, `landlock-partial` or
    /// `none`. Nothing was asked for, and nothing is said, when there are no paths.
    pub(crate) fn confine(&self) -> &'static str {
        if self.read.is_empty() && self.write.is_empty() {
            return "";
        }
        self.enforce().unwrap_or("none")
    }

    #[cfg(target_os = "linux")]
    fn enforce(&self) -> Option<&'static str> {
        use landlock::{
            ABI, Access as _, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
            RulesetStatus, path_beneath_rules,
        };

        // The third version is the first that also covers truncation; later ones are about devices
        // and sockets, which are no captured files.
        let everything = AccessFs::from_all(ABI::V3);
        let reading = AccessFs::from_read(ABI::V3);
        let rules = Ruleset::default().handle_access(everything).ok()?;
        let rules = rules.create().ok()?;
        let rules = rules
            .add_rules(path_beneath_rules(&self.read, reading))
            .ok()?;
        let rules = rules
            .add_rules(path_beneath_rules(&self.write, everything))
            .ok()?;
        match rules.restrict_self().ok()?.ruleset {
            RulesetStatus::FullyEnforced => Some("landlock"),
            RulesetStatus::PartiallyEnforced => Some("landlock-partial"),
            RulesetStatus::NotEnforced => None,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn enforce(&self) -> Option<&'static str> {
        None
    }
}
