//! The master key of a data directory: a file that only the server's user can read. It wraps every other key.

use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use failpoint::Point;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::seal::SecretKey;

/// Setting that holds a known text under the master key, so that a wrong or lost key is noticed at the start.
const CHECK: &str = "master_key_check";

const CHECKED_TEXT: &[u8] = b"modelyard";

/// Reads the master key, or makes it where the data directory never had one.
pub(super) async fn open(database: &Database, path: &Path) -> Result<SecretKey> {
    let check = database.read(|session| session.setting(CHECK)).await?;
    let shown = path.display();
    let key = match std::fs::read_to_string(path) {
        Ok(text) => parse(&text).ok_or_else(|| {
            Error::Invalid(format!("{shown} is not a master key: put the file back from a backup"))
        })?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && check.is_none() => {
            let key = SecretKey::random();
            write(path, &key).map_err(Error::file(format!("write {shown}")))?;
            key
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::Invalid(format!(
                "{shown} is missing: put it back from a backup, since what is encrypted cannot be read without it"
            )));
        }
        Err(error) => return Err(Error::file(format!("read {shown}"))(error)),
    };
    match check {
        Some(check) if key.open(b"check", &from_hex(&check).unwrap_or_default()).is_err() => {
            Err(Error::Invalid(format!(
                "{shown} is not the master key that this data directory was written with: put that one back from a backup"
            )))
        }
        Some(_) => Ok(key),
        None => {
            let check = to_hex(&key.seal(b"check", CHECKED_TEXT));
            database.write(move |session| session.put_setting(CHECK, &check)).await?;
            Ok(key)
        }
    }
}

fn parse(text: &str) -> Option<SecretKey> {
    SecretKey::from_bytes(&from_hex(text.trim_end())?)
}

/// Writes the key so that it is there after a power cut, before anything is encrypted with it.
fn write(path: &Path, key: &SecretKey) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(folder)?;
    let partial = path.with_extension("partial");
    // Left by a start that was cut off.
    let _ = std::fs::remove_file(&partial);
    let mut file = std::fs::File::options().write(true).create_new(true).mode(0o600).open(&partial)?;
    writeln!(file, "{}", to_hex(key.expose()))?;
    failpoint::at(Point::PrivateFileSync)?;
    file.sync_all()?;
    failpoint::at(Point::PrivateFileRename)?;
    std::fs::rename(&partial, path)?;
    std::fs::File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |above| std::fs::File::open(above)?.sync_all())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
