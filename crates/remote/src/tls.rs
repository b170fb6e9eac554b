//! TLS of clients: which certificates are trusted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// Where systems keep the certificates that they trust.
const SYSTEM_BUNDLES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// Trusts the certificates of a PEM file, or the system's.
///
/// # Errors
/// A text that names the file.
pub fn client_config(bundle: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let system = || SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let bundle = bundle.map(Path::to_owned).or_else(system);
    let bundle =
        bundle.ok_or("the system has no file of trusted certificates (Debian: package ca-certificates)")?;
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", bundle.display());
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&bundle).map_err(|error| named(&error))? {
        roots.add(certificate.map_err(|error| named(&error))?).map_err(|error| named(&error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
