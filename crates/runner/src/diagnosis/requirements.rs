//! What pip and uv say when requirements cannot be installed, down to the one requirement that is in the way.

/// A requirement that cannot be met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The requirement, as far as the installer names it.
    pub requirement: String,
    /// What is wrong with it, in one sentence.
    pub sentence: String,
    /// What to do.
    pub hint: String,
    /// The installer's own lines.
    pub evidence: Vec<String>,
}

/// Versions that are shown of those that exist: the newest.
const VERSIONS_SHOWN: usize = 5;

/// Finds it in the installer's output; `None` when the output is of another matter.
pub fn unmet_requirement(output: &str) -> Option<Unmet> {
    let lines: Vec<&str> =
        output.lines().map(|line| line.trim_start_matches("modelyard: ").trim_end()).collect();
    conflict_of_pip(&lines)
        .or_else(|| conflict_of_uv(&lines))
        .or_else(|| other_python(&lines))
        .or_else(|| no_version(&lines))
        .or_else(|| not_a_requirement(&lines))
        .or_else(|| not_built(&lines))
        .or_else(|| index_unreachable(&lines))
}

fn found(requirement: &str, sentence: String, hint: &str, evidence: Vec<String>) -> Option<Unmet> {
    let hint = hint.to_owned();
    Some(Unmet { requirement: requirement.trim().to_owned(), sentence, hint, evidence })
}

const LOOSEN: &str =
    "Loosen or change one of the two in requirements.txt; what the image brings is in docs/images.md.";

/// `The conflict is caused by:` and the two sides below it.
fn conflict_of_pip(lines: &[&str]) -> Option<Unmet> {
    let at = lines.iter().rposition(|line| line.contains("The conflict is caused by:"))?;
    // The sides are indented; empty lines may have been left out.
    let sides: Vec<&str> =
        lines[at + 1..].iter().take_while(|line| line.starts_with(' ')).map(|line| line.trim()).collect();
    let wanted = sides
        .iter()
        .find_map(|line| line.strip_prefix("The user requested "))
        .map(|rest| rest.trim_start_matches("(constraint) "));
    let depending = sides.iter().find(|line| line.contains(" depends on "));
    let requirement = wanted
        .or_else(|| depending.and_then(|line| line.split(" depends on ").nth(1)))
        .map(|requirement| requirement.split(';').next().unwrap_or(requirement).trim())?;
    let sentence = match (wanted, depending) {
        (Some(_), Some(line)) => format!("The requirement {requirement} conflicts with another one: {line}."),
        _ => format!("Requirements conflict: {}.", sides.join("; ")),
    };
    found(requirement, sentence, LOOSEN, sides.iter().map(|line| (*line).to_owned()).collect())
}

/// `Because … we can conclude that your requirements are unsatisfiable.`, wrapped over lines.
fn conflict_of_uv(lines: &[&str]) -> Option<Unmet> {
    let at = lines.iter().rposition(|line| line.contains("No solution found"))?;
    let text: Vec<&str> = lines[at + 1..]
        .iter()
        .take_while(|line| line.starts_with(' '))
        .map(|line| line.trim().trim_start_matches(['╰', '─', '▶', '│', ' ']).trim_start_matches("cause: "))
        .collect();
    let text = text.join(" ");
    let because = text.split("Because ").nth(1)?;
    let because = because.split(", we can conclude").next().unwrap_or(because);
    let requirement = match because.split(" you require ").nth(1) {
        Some(rest) => rest.split([' ', ',']).next().unwrap_or(rest),
        None => because.split(' ').next().unwrap_or(because),
    };
    let sentence = format!("The requirements cannot be met together: {because}.");
    found(requirement, sentence, LOOSEN, vec![text.clone()])
}

fn other_python(lines: &[&str]) -> Option<Unmet> {
    const NEEDLE: &str = " requires a different Python: ";
    let line = lines.iter().rfind(|line| line.contains(NEEDLE))?;
    let (package, rest) = line.split_once(NEEDLE)?;
    let package = package.rsplit('\'').nth(1).unwrap_or(package).trim_start_matches("ERROR: ");
    let sentence = format!("{package} does not work with this version of Python: {rest}.");
    let hint =
        "Use a version of the package for this Python, or an image with another Python (see docs/images.md).";
    found(package, sentence, hint, vec![(*line).to_owned()])
}

fn no_version(lines: &[&str]) -> Option<Unmet> {
    const NEEDLE: &str = "Could not find a version that satisfies the requirement ";
    let line = lines.iter().rfind(|line| line.contains(NEEDLE))?;
    let rest = line.split(NEEDLE).nth(1)?;
    let (requirement, versions) = rest.split_once(" (from versions: ").unwrap_or((rest, "none"));
    let requirement = requirement.split(" (from ").next().unwrap_or(requirement);
    let versions: Vec<&str> =
        versions.trim_end_matches(')').split(", ").filter(|version| *version != "none").collect();
    if versions.is_empty() {
        if let Some(unreachable) = index_unreachable(lines) {
            return Some(Unmet { requirement: requirement.to_owned(), ..unreachable });
        }
        let sentence =
            format!("The package index has nothing for {requirement} that fits this Python and system.");
        let hint = "Check the spelling; a private package needs its index (PIP_INDEX_URL or PIP_EXTRA_INDEX_URL in the server's \
                    environment) or a wheel beside requirements.txt.";
        return found(requirement, sentence, hint, vec![(*line).to_owned()]);
    }
    let newest = versions[versions.len().saturating_sub(VERSIONS_SHOWN)..].join(", ");
    let sentence = format!("There is no version {requirement}; the newest that there are: {newest}.");
    let evidence = vec![format!("No matching distribution found for {requirement}")];
    found(requirement, sentence, "Ask for a version that exists and fits this Python.", evidence)
}

fn not_a_requirement(lines: &[&str]) -> Option<Unmet> {
    let pip = lines.iter().rfind(|line| line.contains("Invalid requirement: "));
    if let Some(line) = pip {
        let requirement = line.split('\'').nth(1).unwrap_or_default();
        let sentence = format!("The line {requirement:?} of requirements.txt is not a requirement.");
        let evidence = vec![(*line).to_owned()];
        return found(
            requirement,
            sentence,
            "Write it as NAME==VERSION, NAME>=VERSION or NAME @ URL.",
            evidence,
        );
    }
    let at = lines
        .iter()
        .rposition(|line| line.contains("Couldn't parse requirement") || line.contains("Failed to parse"))?;
    let next = |offset: usize| lines.get(at + offset).map(|line| line.trim()).unwrap_or_default();
    let sentence = format!(
        "A line of requirements.txt is not a requirement: {}.",
        next(1).trim_start_matches("cause: ")
    );
    let evidence = lines[at..].iter().take(4).map(|line| line.trim().to_owned()).collect();
    found(next(2), sentence, "Write it as NAME==VERSION, NAME>=VERSION or NAME @ URL.", evidence)
}

fn not_built(lines: &[&str]) -> Option<Unmet> {
    const SAID: [&str; 5] = [
        "Failed building wheel for ",
        "Failed to build installable wheels for some pyproject.toml based projects (",
        "Could not build wheels for ",
        "Failed to build '",
        "Failed to build `",
    ];
    let named = lines.iter().rev().find_map(|line| {
        let rest = SAID.iter().find_map(|said| line.split(said).nth(1))?;
        let end = rest.find([',', '\'', '`', ')', ' ']).unwrap_or(rest.len());
        Some((rest[..end].to_owned(), (*line).to_owned()))
    });
    let in_setup = || {
        lines
            .iter()
            .rfind(|line| line.contains("subprocess-exited-with-error"))
            .map(|line| (String::new(), (*line).to_owned()))
    };
    let (package, line) = named.or_else(in_setup)?;
    // The compiler's or the script's own error, not pip's frame around it.
    let own = |line: &&&str| {
        let text = line.trim().trim_start_matches(['│', '|', ' ']);
        let is_error = text.contains("Error: ")
            || text.contains("error: ")
            || text.contains("fatal error")
            || text.contains("not found");
        is_error
            && !text.contains("subprocess-exited-with-error")
            && !SAID.iter().any(|said| text.contains(said))
    };
    let cause =
        lines.iter().rev().find(own).map(|line| line.trim().trim_start_matches(['│', '|', ' ']).to_owned());
    let what = if package.is_empty() {
        "A package of requirements.txt".to_owned()
    } else {
        format!("The package {package}")
    };
    let why = cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
    let sentence =
        format!("{what} has no wheel for this Python and system, and building it from source failed{why}.");
    let hint = "Ask for a version that has a wheel for this Python, or install on this machine what the build misses (a compiler, the \
                headers that it names).";
    found(&package, sentence, hint, cause.into_iter().chain([line]).collect())
}

fn index_unreachable(lines: &[&str]) -> Option<Unmet> {
    const SAID: [&str; 7] = [
        "NewConnectionError",
        "Failed to establish a new connection",
        "Temporary failure in name resolution",
        "ConnectTimeoutError",
        "Failed to fetch:",
        "error sending request for url",
        "SSLError",
    ];
    let line = lines.iter().rfind(|line| SAID.iter().any(|said| line.contains(said)))?;
    let hint = "The machine that runs the server needs a way to the index: set PIP_INDEX_URL, HTTPS_PROXY or PIP_FIND_LINKS in the \
                server's environment.";
    found("", "The package index could not be reached.".to_owned(), hint, vec![(*line).to_owned()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pip_names_the_conflict() {
        let output = "INFO: pip is looking at multiple versions of pandas to determine which version is compatible.\n\
            ERROR: Cannot install -r conflict.txt (line 2) and numpy==1.20.0 because these package versions have conflicting dependencies.\n\
            \n\
            The conflict is caused by:\n    The user requested numpy==1.20.0\n    pandas 2.2.2 depends on numpy>=1.23.2; python_version == \"3.11\"\n\
            \n\
            To fix this you could try to:\n1. loosen the range of package versions you've specified\n\
            \n\
            ERROR: ResolutionImpossible: for help visit https://pip.pypa.io/\n(exit status: 1)";
        let unmet = unmet_requirement(output).unwrap();
        assert_eq!(unmet.requirement, "numpy==1.20.0");
        assert_eq!(
            unmet.sentence,
            "The requirement numpy==1.20.0 conflicts with another one: pandas 2.2.2 depends on numpy>=1.23.2; python_version == \"3.11\"."
        );
        let in_log: String = output.lines().map(|line| format!("modelyard: {line}\n")).collect();
        assert_eq!(unmet_requirement(&in_log).unwrap().requirement, "numpy==1.20.0");
        // The log and the builder leave empty lines out.
        let dense: String =
            output.lines().filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        assert_eq!(unmet_requirement(&dense).unwrap().requirement, "numpy==1.20.0");
    }

    #[test]
    fn pip_has_no_such_version_or_package() {
        let output = "ERROR: Could not find a version that satisfies the requirement requests==99.9 (from versions: 0.2.0, 2.29.0, 2.30.0, \
                      2.31.0, 2.32.0, 2.32.1)\nERROR: No matching distribution found for requests==99.9";
        let unmet = unmet_requirement(output).unwrap();
        assert_eq!(unmet.requirement, "requests==99.9");
        assert!(unmet.sentence.ends_with("2.29.0, 2.30.0, 2.31.0, 2.32.0, 2.32.1."), "{}", unmet.sentence);
        let output = "ERROR: Could not find a version that satisfies the requirement no-such-package (from versions: none)\n\
                      ERROR: No matching distribution found for no-such-package";
        let unmet = unmet_requirement(output).unwrap();
        assert!(
            unmet.sentence.contains("nothing for no-such-package") && unmet.hint.contains("spelling"),
            "{unmet:?}"
        );
        let offline = format!(
            "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError('Failed to establish a new connection: \
             [Errno -3] Temporary failure in name resolution')': /simple/x/\n{output}"
        );
        assert_eq!(unmet_requirement(&offline).unwrap().sentence, "The package index could not be reached.");
    }

    #[test]
    fn uv_explains_in_a_sentence() {
        let output = "error: No solution found when resolving dependencies\n  cause: Because pandas==2.2.2 depends on \
            numpy{python_full_version < '3.12'}>=1.23.2 and you require numpy==1.20.0, we can conclude that your requirements and \
            pandas==2.2.2 are incompatible.\n         And because you require pandas==2.2.2, we can conclude that your requirements are \
            unsatisfiable.";
        let unmet = unmet_requirement(output).unwrap();
        assert_eq!(unmet.requirement, "numpy==1.20.0");
        assert!(unmet.sentence.contains("pandas==2.2.2 depends on numpy"), "{}", unmet.sentence);
        let wrapped = "  × No solution found when resolving dependencies:\n  ╰─▶ Because there is no version of requests==99.9 and you\n      \
                       require requests==99.9, we can conclude that your requirements\n      are unsatisfiable.";
        assert_eq!(unmet_requirement(wrapped).unwrap().requirement, "requests==99.9");
    }

    #[test]
    fn broken_lines_and_other_pythons_are_named() {
        let unmet = unmet_requirement("ERROR: Invalid requirement: 'foo=1.0' (from line 1 of bad.txt)\nHint: = is not a valid operator.").unwrap();
        assert_eq!(unmet.requirement, "foo=1.0");
        let uv = "error: Couldn't parse requirement in `bad.txt` at position 0\n  cause: no such comparison operator \"=\", must be one of ~= \
                  ==\n         foo=1.0\n            ^^^^";
        assert_eq!(unmet_requirement(uv).unwrap().requirement, "foo=1.0");
        let output = "ERROR: Package 'numpy' requires a different Python: 3.8.10 not in '>=3.9'";
        assert!(
            unmet_requirement(output)
                .unwrap()
                .sentence
                .contains("numpy does not work with this version of Python: 3.8.10")
        );
    }

    #[test]
    fn a_failed_build_gives_the_compilers_word() {
        let output = "  error: subprocess-exited-with-error\n  × Building wheel for mpi4py (pyproject.toml) did not run successfully.\n  │ exit \
            code: 1\n  ╰─> [27 lines of output]\n      _configtest.c:2:10: fatal error: mpi.h: No such file or directory\n      compilation \
            terminated.\n      [end of output]\n  ERROR: Failed building wheel for mpi4py\nFailed to build mpi4py\nERROR: Could not build \
            wheels for mpi4py, which is required to install pyproject.toml-based projects";
        let unmet = unmet_requirement(output).unwrap();
        assert_eq!(unmet.requirement, "mpi4py");
        assert!(unmet.sentence.contains("mpi.h: No such file"), "{}", unmet.sentence);
    }

    #[test]
    fn output_of_another_matter_is_none() {
        assert_eq!(unmet_requirement("Collecting numpy\nKilled"), None);
        assert_eq!(unmet_requirement(""), None);
    }
}
