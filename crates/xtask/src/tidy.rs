//! What a compiler does not check: the arrows between crates, words that only some crates may say, sizes that only
//! shrink, and that the documents' links lead somewhere.

use crate::process::Tally;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Which crates of the workspace each crate may depend on: docs/ARCHITECTURE.md's map. Dependencies of tests may
/// be any.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("world", &["model"]),
    ("catalog", &["model"]),
    ("api", &["catalog", "model"]),
    ("storage", &["world", "api", "catalog", "model"]),
    ("consensus", &["storage", "world", "model"]),
    (
        "cluster",
        &["consensus", "storage", "api", "catalog", "world", "model"],
    ),
    (
        "txn",
        &[
            "cluster",
            "consensus",
            "storage",
            "api",
            "catalog",
            "world",
            "model",
        ],
    ),
    (
        "quorum",
        &["cluster", "storage", "api", "catalog", "world", "model"],
    ),
    (
        "node",
        &[
            "txn",
            "quorum",
            "cluster",
            "consensus",
            "storage",
            "api",
            "catalog",
            "world",
            "model",
        ],
    ),
    ("sql", &["api", "catalog", "model"]),
    ("cql", &["api", "catalog", "model"]),
    ("dynamo", &["api", "catalog", "model"]),
    ("spanner", &["sql", "api", "catalog", "model"]),
    ("admin", &[]),
    ("os", &["world", "model"]),
    (
        "sim",
        &[
            "node",
            "txn",
            "quorum",
            "cluster",
            "consensus",
            "storage",
            "api",
            "catalog",
            "world",
            "model",
        ],
    ),
    ("bench", &[]),
    ("xtask", &[]),
    (
        "tessera",
        &[
            "admin", "cql", "dynamo", "spanner", "node", "storage", "os", "api", "catalog",
            "world", "model",
        ],
    ),
];

/// Words in sources (not in tests), the crates that may say them, and why others may not.
const BANNED: &[(&str, &[&str], &str)] = &[
    (
        "SystemTime",
        &["os", "api", "tessera", "bench"],
        "time is `world::Clock`'s",
    ),
    (
        "std::time::Instant",
        &[
            "os", "storage", "cql", "dynamo", "spanner", "admin", "tessera", "bench", "xtask",
        ],
        "time is `world::Clock`'s, or tokio's",
    ),
    (
        "std::thread",
        &["storage", "os", "bench", "tessera", "sim"],
        "threads belong to `storage` and `os`; `sim` runs seeds on several",
    ),
    (
        "spawn_blocking",
        &["tessera"],
        "the simulator has one thread",
    ),
    (
        "std::fs",
        &["storage", "os", "bench", "tessera", "xtask"],
        "files belong to `storage`",
    ),
    (
        "TcpStream",
        &[
            "os", "cql", "dynamo", "spanner", "admin", "bench", "tessera",
        ],
        "sockets belong to `os` and the doors",
    ),
    (
        "TcpListener",
        &["os", "cql", "dynamo", "spanner", "admin", "tessera"],
        "sockets belong to `os` and the doors",
    ),
    ("rand::rng()", &["os"], "randomness is `world::Random`'s"),
    ("thread_rng", &["os"], "randomness is `world::Random`'s"),
    (
        "RandomState",
        &[],
        "hashers are fixed, so that a seed fixes every order",
    ),
    (
        "todo!(",
        &[],
        "what is not built is refused with a clear error",
    ),
    (
        "unimplemented!(",
        &[],
        "what is not built is refused with a clear error",
    ),
    ("dbg!(", &[], "a leftover"),
    ("FIXME", &[], "an issue says it better"),
];

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 120;
/// `path<tab>what<tab>lines`: places above a limit. A number may only shrink, and goes when it is below the limit.
const ALLOWANCES: &str = "crates/xtask/allowances.txt";
/// What every change keeps.
const REQUIRED: &[&str] = &[
    "README.md",
    "LICENSE",
    ".ci/run",
    "docs/ARCHITECTURE.md",
    "docs/GLOSSARY.md",
    "docs/formats",
    "docs/decisions",
    "tests/requirements.txt",
];
/// Folders of a machine, not of the project.
const MACHINE_PATHS: &[&str] = &["/root/", "/work/", "/home/"];

pub fn run(root: &Path) -> Result<Tally, String> {
    let sources = sources(root)?;
    let mut problems = Vec::new();
    let mut checks = 0;
    for (crate_name, allowed) in EDGES {
        checks += 1;
        edges(root, crate_name, allowed, &mut problems)?;
    }
    for path in &sources {
        checks += 1;
        let text = read(&root.join(path))?;
        words(path, &text, &mut problems);
    }
    checks += 1;
    sizes(root, &sources, &mut problems)?;
    for required in REQUIRED {
        checks += 1;
        if !root.join(required).exists() {
            problems.push(format!("{required} is missing"));
        }
    }
    for path in documents(root)? {
        checks += 1;
        links(root, &path, &mut problems)?;
    }
    problems.sort();
    for problem in &problems {
        println!("{problem}");
    }
    let failed = problems.len() as u64;
    Ok(Tally {
        passed: checks.max(failed) - failed,
        failed,
    })
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

/// All files below a folder with this ending, as paths from the root, in order.
fn walk(root: &Path, folder: &str, ending: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    let mut open = vec![root.join(folder)];
    while let Some(folder) = open.pop() {
        let entries =
            std::fs::read_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for entry in entries {
            let path = entry
                .map_err(|error| format!("{}: {error}", folder.display()))?
                .path();
            if path.is_dir() {
                open.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == ending)
                && let Ok(relative) = path.strip_prefix(root)
            {
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sources(root: &Path) -> Result<Vec<PathBuf>, String> {
    walk(root, "crates", "rs")
}

fn documents(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = walk(root, "docs", "md")?;
    found.push("README.md".into());
    Ok(found)
}

fn edges(
    root: &Path,
    crate_name: &str,
    allowed: &[&str],
    problems: &mut Vec<String>,
) -> Result<(), String> {
    let manifest = read(&root.join("crates").join(crate_name).join("Cargo.toml"))?;
    if !manifest.contains("[lints]\nworkspace = true") {
        problems.push(format!(
            "crate {crate_name} does not take the workspace's lints"
        ));
    }
    let mut section = "";
    for line in manifest.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
        let is_ours = EDGES.iter().any(|(ours, _)| *ours == name);
        if section == "dependencies" && is_ours && !allowed.contains(&name) {
            problems.push(format!("crate {crate_name} may not depend on {name}"));
        }
    }
    Ok(())
}

/// The part of a source file that is not its tests.
fn without_tests(text: &str) -> &str {
    text.split_once("#[cfg(test)]\nmod ")
        .map_or(text, |(code, _)| code)
}

fn words(path: &Path, text: &str, problems: &mut Vec<String>) {
    let shown = path.display();
    let mut parts = path.iter().skip(1).map(|part| part.to_string_lossy());
    let crate_name = parts.next().unwrap_or_default();
    let is_source =
        parts.next().is_some_and(|folder| folder == "src") && !path.ends_with("tests.rs");
    let is_tidy = crate_name == "xtask" && path.ends_with("tidy.rs");
    if is_tidy {
        return;
    }
    for machine_path in MACHINE_PATHS {
        if text.contains(machine_path) {
            problems.push(format!(
                "{shown}: names {machine_path}, a folder of some machine"
            ));
        }
    }
    if !is_source {
        return;
    }
    if !text.starts_with("//!") {
        problems.push(format!("{shown}: a module opens with what it does (`//!`)"));
    }
    for (number, line) in without_tests(text).lines().enumerate() {
        for (word, allowed, reason) in BANNED {
            if line.contains(word) && !allowed.contains(&crate_name.as_ref()) {
                problems.push(format!("{shown}:{}: `{word}`: {reason}", number + 1));
            }
        }
    }
}

/// Files and functions above their limits, by what they are called in the allowances.
fn oversized(path: &Path, text: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() > FILE_LINES_MAX {
        found.push((format!("{}\tfile", path.display()), lines.len()));
    }
    let mut open: Option<(usize, &str, &str)> = None;
    for (number, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        match open {
            Some((begin, depth, name)) => {
                if *line == format!("{depth}}}") {
                    if number - begin + 1 > FUNCTION_LINES_MAX {
                        found.push((format!("{}\tfn {name}", path.display()), number - begin + 1));
                    }
                    open = None;
                }
            }
            None => {
                let is_function = line.trim_start().starts_with("fn ")
                    || [" fn ", "async fn "]
                        .iter()
                        .any(|mark| line.contains(mark) && !line.contains("//"));
                // Trait methods without a body end in a semicolon.
                if is_function && !line.trim_end().ends_with(';') && !line.trim_end().ends_with('}')
                {
                    let name = line.split("fn ").nth(1).unwrap_or_default();
                    let name = name.split(['(', '<']).next().unwrap_or_default();
                    open = Some((number, indent, name));
                }
            }
        }
    }
    found
}

fn sizes(root: &Path, sources: &[PathBuf], problems: &mut Vec<String>) -> Result<(), String> {
    let mut allowed = BTreeMap::new();
    for line in read(&root.join(ALLOWANCES))?
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let parsed = line
            .rsplit_once('\t')
            .and_then(|(what, lines)| Some((what, lines.parse::<usize>().ok()?)));
        match parsed {
            Some((what, lines)) => {
                allowed.insert(what.to_owned(), lines);
            }
            None => problems.push(format!(
                "{ALLOWANCES}: {line:?} is not `path<tab>what<tab>lines`"
            )),
        }
    }
    for path in sources {
        for (what, lines) in oversized(path, &read(&root.join(path))?) {
            match allowed.remove(&what) {
                Some(most) if lines == most => {}
                Some(most) if lines < most => {
                    problems.push(format!("{what}: {lines} lines by now: lower its allowance of {most}"));
                }
                _ => problems.push(format!(
                    "{what}: {lines} lines, where a file has at most {FILE_LINES_MAX} and a function {FUNCTION_LINES_MAX}"
                )),
            }
        }
    }
    for what in allowed.keys() {
        problems.push(format!("{what}: within its limit: remove its allowance"));
    }
    Ok(())
}

/// Relative links in a document lead to files that exist.
fn links(root: &Path, path: &Path, problems: &mut Vec<String>) -> Result<(), String> {
    let text = read(&root.join(path))?;
    for machine_path in MACHINE_PATHS {
        if text.contains(machine_path) {
            problems.push(format!(
                "{}: names {machine_path}, a folder of some machine",
                path.display()
            ));
        }
    }
    for rest in text.split("](").skip(1) {
        let target = rest.split([')', '#']).next().unwrap_or_default();
        if target.is_empty() || target.contains("://") {
            continue;
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        if !root.join(folder).join(target).exists() {
            problems.push(format!(
                "{}: a link leads to {target}, which is not there",
                path.display()
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{oversized, words};
    use std::path::Path;

    fn problems_of(path: &str, text: &str) -> Vec<String> {
        let mut problems = Vec::new();
        words(Path::new(path), text, &mut problems);
        problems
    }

    #[test]
    fn banned_words_are_found_in_sources_and_not_in_tests() {
        let text = "//! A module.\nuse std::fs;\n#[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
        assert_eq!(problems_of("crates/quorum/src/lib.rs", text).len(), 1);
        assert_eq!(problems_of("crates/storage/src/lib.rs", text).len(), 0);
        assert_eq!(problems_of("crates/quorum/tests/it/main.rs", text).len(), 0);
        assert_eq!(
            problems_of("crates/quorum/src/lib.rs", "fn f() {}\n").len(),
            1,
            "no opening paragraph"
        );
    }

    #[test]
    fn long_functions_and_files_are_found() {
        let body = "        x();\n".repeat(119);
        let text =
            format!("impl T {{\n    fn long() {{\n{body}    }}\n\n    fn short() {{\n    }}\n}}\n");
        let found = oversized(Path::new("a.rs"), &text);
        assert_eq!(found, [("a.rs\tfn long".to_owned(), 121)]);
        let found = oversized(Path::new("a.rs"), &"\n".repeat(801));
        assert_eq!(found, [("a.rs\tfile".to_owned(), 801)]);
    }
}
