//! `modelyard bucket add --remote`: buckets of other S3 stores. Their credentials come by a file, standard input or the
//! environment, never on the command line, and are kept sealed.

use std::io::Read;
use std::path::{Path, PathBuf};

use store::keys::KeyStore;
use store::objects::{Bucket, Remote, RemoteCredentials};
use store::{Clock, Database};

use super::buckets::check_account;
use super::output;
use crate::config::variable;

/// Flags of a remote bucket.
#[derive(clap::Args)]
pub struct RemoteFlags {
    /// The bucket of another S3 store: https://host[:port]/bucket[/prefix]
    #[arg(long, value_name = "URL")]
    remote: Option<String>,
    /// Region that its requests are signed for [default: us-east-1]
    #[arg(long, requires = "remote")]
    region: Option<String>,
    /// Put the bucket into the path of URLs (the default)
    #[arg(long, requires = "remote", conflicts_with = "virtual_hosted")]
    path_style: bool,
    /// Put the bucket before the host of URLs
    #[arg(long, requires = "remote")]
    virtual_hosted: bool,
    /// File with aws_access_key_id and aws_secret_access_key (and aws_session_token), as tools of AWS have it; `-` for
    /// standard input [default: MODELYARD_REMOTE_ACCESS_KEY_ID, .._SECRET_ACCESS_KEY and .._SESSION_TOKEN]
    #[arg(long, requires = "remote", value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// Certificates to trust instead of the system's, in PEM
    #[arg(long, requires = "remote", value_name = "FILE")]
    ca_bundle: Option<PathBuf>,
    /// Allow addresses of this link alone, among them those where clouds give out credentials
    #[arg(long, requires = "remote")]
    allow_link_local: bool,
}

/// Which bucket is made of it.
pub struct Place {
    /// Account that owns it.
    pub account: String,
    /// Region that it is shown in.
    pub region: String,
    /// Its name.
    pub name: String,
    /// Whether objects can be neither written nor removed.
    pub is_read_only: bool,
}

/// Registers a remote bucket, after it has answered.
///
/// # Errors
/// What is wrong with the address, the credentials or the name, or why the remote store does not answer.
pub async fn add(
    database: &Database,
    data_dir: &Path,
    place: Place,
    flags: &RemoteFlags,
) -> Result<(), String> {
    let address = remote::parse(flags.remote.as_deref().unwrap_or_default())?;
    let region = flags.region.clone().unwrap_or_else(|| "us-east-1".into());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if region.is_empty() || !region.bytes().all(is_plain) {
        return Err(format!("--region {region:?}: a region looks like us-east-1"));
    }
    let ca_bundle = flags
        .ca_bundle
        .as_ref()
        .map(|path| path.canonicalize().map_err(|error| format!("--ca-bundle {}: {error}", path.display())));
    let mut remote = Remote {
        endpoint: address.endpoint,
        bucket: address.bucket,
        prefix: address.prefix,
        region,
        is_path_style: !flags.virtual_hosted,
        is_read_only: place.is_read_only,
        allows_link_local: flags.allow_link_local,
        ca_bundle: ca_bundle.transpose()?,
        credentials: Vec::new(),
    };
    let credentials = read_credentials(flags.credentials.as_deref())?;
    probe(&remote, &credentials).await?;
    let keys = keys(database, data_dir).await?;
    let sealed = credentials.seal(&keys, &place.account, &place.name);
    remote.credentials = sealed.map_err(|error| error.to_string())?;
    let line = format!("{} is {} now", place.name, remote.url());
    let bucket = Bucket {
        name: place.name,
        account: place.account,
        region: place.region,
        created_at: Clock::system().now_ms(),
        folder: None,
        remote: Some(remote),
    };
    let added = database.write(move |session| {
        check_account(session, &bucket.account)?;
        session.insert_remote_bucket(&bucket)
    });
    added.await.map_err(|error| error.to_string())?;
    output::line(&line);
    Ok(())
}

/// Replaces the credentials of a remote bucket, after it has opened with the new ones.
///
/// # Errors
/// As [`add`].
pub async fn set_credentials(
    database: &Database,
    data_dir: &Path,
    account: String,
    name: String,
    file: Option<&Path>,
) -> Result<(), String> {
    let (owner, bucket) = (account.clone(), name.clone());
    let remote = database.read(move |session| session.owned_remote(&owner, &bucket)).await;
    let remote = remote.map_err(|error| error.to_string())?;
    let credentials = read_credentials(file)?;
    probe(&remote, &credentials).await?;
    let sealed = credentials.seal(&keys(database, data_dir).await?, &account, &name);
    let sealed = sealed.map_err(|error| error.to_string())?;
    let line = format!("{name} is opened with the new credentials now");
    let set = database.write(move |session| session.set_remote_credentials(&account, &name, &sealed));
    set.await.map_err(|error| error.to_string())?;
    output::line(&line);
    Ok(())
}

async fn probe(remote: &Remote, credentials: &RemoteCredentials) -> Result<(), String> {
    let connector = remote::S3Connector::new(Clock::system());
    connector.probe(remote, credentials.clone()).await.map_err(|error| error.to_string())
}

async fn keys(database: &Database, data_dir: &Path) -> Result<KeyStore, String> {
    let keys = KeyStore::open(database.clone(), &data_dir.join("keys/master.key"), Clock::system()).await;
    keys.map_err(|error| error.to_string())
}

fn read_credentials(file: Option<&Path>) -> Result<RemoteCredentials, String> {
    let Some(file) = file else {
        let names = ["MODELYARD_REMOTE_ACCESS_KEY_ID", "MODELYARD_REMOTE_SECRET_ACCESS_KEY"];
        let [Some(access_key_id), Some(secret_access_key)] = names.map(variable) else {
            return Err(format!(
                "give the credentials of the remote store by --credentials FILE, or in {} and {}",
                names[0], names[1]
            ));
        };
        let session_token = variable("MODELYARD_REMOTE_SESSION_TOKEN");
        return Ok(RemoteCredentials { access_key_id, secret_access_key, session_token });
    };
    let shown = file.display();
    let text = if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.map_err(|error| format!("--credentials {shown}: {error}"))?;
    parse_credentials(&text).map_err(|problem| format!("--credentials {shown}: {problem}"))
}

/// The form of tools of AWS: `name = value` lines, in one section or none.
fn parse_credentials(text: &str) -> Result<RemoteCredentials, String> {
    let (mut access_key_id, mut secret_access_key, mut session_token, mut sections) = (None, None, None, 0);
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            sections += 1;
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        let value = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        match name.trim() {
            "aws_access_key_id" => access_key_id = value,
            "aws_secret_access_key" => secret_access_key = value,
            "aws_session_token" => session_token = value,
            _ => {}
        }
    }
    if sections > 1 {
        return Err("it has several sections; leave one".into());
    }
    let access_key_id = access_key_id.ok_or("it has no line aws_access_key_id = ...")?;
    let secret_access_key = secret_access_key.ok_or("it has no line aws_secret_access_key = ...")?;
    Ok(RemoteCredentials { access_key_id, secret_access_key, session_token })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_lines_of_a_file() {
        let text = "# mine\n[default]\naws_access_key_id = AK\naws_secret_access_key=s=1/x\n region = x\n";
        let read = parse_credentials(text).unwrap();
        assert_eq!((read.access_key_id.as_str(), read.secret_access_key.as_str()), ("AK", "s=1/x"));
        assert_eq!(read.session_token, None);
        assert_eq!(format!("{read:?}"), "RemoteCredentials(AK, ..)");
        assert!(parse_credentials("aws_access_key_id = AK").unwrap_err().contains("aws_secret_access_key"));
        assert!(parse_credentials("[a]\naws_access_key_id = x\n[b]\n").unwrap_err().contains("sections"));
    }
}
