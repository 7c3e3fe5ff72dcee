//! The files of the AWS tool. They are not read; but who has one expects that it is, so where no other credentials are found, the
//! error names it.

use std::path::{Path, PathBuf};

use crate::backup::store::environment::Environment;

/// The first file with profiles that is there, where the AWS tool looks for them.
pub(super) fn file(environment: &Environment) -> Option<PathBuf> {
    let places = [("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials"), ("AWS_CONFIG_FILE", ".aws/config")];
    let mut named = places.into_iter().filter_map(|(variable, below)| match environment.value(variable) {
        Some(path) => Some(PathBuf::from(path)),
        None => environment.value("HOME").map(|home| Path::new(home).join(below)),
    });
    named.find(|path| path.is_file())
}

/// What to say of it.
pub(super) fn unread(file: &Path) -> String {
    format!(
        "profiles, as in {}, are not read: `aws configure export-credentials --format env` prints the variables of one",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_where_the_aws_tool_looks_for_it() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        let other = home.path().join("other");
        let found = |pairs: &[(&str, &str)]| file(&Environment::of(&[&[("HOME", at)], pairs].concat()));
        assert_eq!(found(&[]), None);
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let (config, credentials) = (home.path().join(".aws/config"), home.path().join(".aws/credentials"));
        for path in [&config, &credentials] {
            std::fs::write(path, "[default]").unwrap();
            assert_eq!(found(&[]).as_ref(), Some(path));
        }
        let moved = ("AWS_SHARED_CREDENTIALS_FILE", other.to_str().unwrap());
        assert_eq!(found(&[moved]), Some(config), "the file that is named is not there");
        std::fs::write(&other, "[default]").unwrap();
        assert_eq!(found(&[moved]), Some(other));
        assert_eq!(file(&Environment::of(&[])), None, "no home");
    }
}
