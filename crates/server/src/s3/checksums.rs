//! Checksums of objects that were uploaded in parts.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::{CrcAlgorithm, checksum_combine};
use s3s::dto::{ChecksumAlgorithm, ChecksumType};
use s3s::{S3Error, S3Result, s3_error};
use store::objects::{Part, PartChecksum};

use super::upload::{ALGORITHMS, by_algorithm, hasher};

/// What an upload is to be checked with.
///
/// # Errors
/// `InvalidRequest` when algorithm and type do not go together.
pub fn wanted(
    algorithm: Option<&ChecksumAlgorithm>,
    kind: Option<&ChecksumType>,
) -> S3Result<Option<PartChecksum>> {
    let kind = kind.map(ChecksumType::as_str);
    let Some(algorithm) = algorithm.map(|algorithm| algorithm.as_str().to_ascii_lowercase()) else {
        return match kind {
            None => Ok(None),
            Some(_) => Err(s3_error!(
                InvalidRequest,
                "The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header."
            )),
        };
    };
    if !ALGORITHMS.contains(&algorithm.as_str()) {
        return Err(s3_error!(
            InvalidRequest,
            "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]"
        ));
    }
    let full_object = match kind {
        None => algorithm == "crc64nvme",
        Some("FULL_OBJECT") => true,
        Some("COMPOSITE") => false,
        Some(_) => return Err(s3_error!(InvalidRequest, "Value for x-amz-checksum-type header is invalid.")),
    };
    // SHA checksums cannot be joined, and CRC64NVME is only ever that of the whole object.
    let possible = if full_object { !algorithm.starts_with("sha") } else { algorithm != "crc64nvme" };
    if !possible {
        return Err(s3_error!(
            InvalidRequest,
            "The {} checksum type cannot be used with the {algorithm} checksum algorithm.",
            kind.unwrap_or_default()
        ));
    }
    Ok(Some(PartChecksum { algorithm, full_object }))
}

/// The checksum of an object from those of its parts; none when a part has none.
///
/// # Errors
/// When a stored checksum is damaged.
pub fn of_parts(wanted: &PartChecksum, parts: &[Part]) -> S3Result<Option<String>> {
    let mut values: Vec<(Vec<u8>, u64)> = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(text) = part.checksums.get(&wanted.algorithm) else { return Ok(None) };
        values.push((STANDARD.decode(text).map_err(S3Error::internal_error)?, part.size));
    }
    if wanted.full_object {
        return Ok(joined(&wanted.algorithm, &values));
    }
    let mut hasher = hasher(std::slice::from_ref(&wanted.algorithm))?;
    for (value, _) in &values {
        hasher.update(value);
    }
    let of_values = by_algorithm(&hasher.finalize()).remove(&wanted.algorithm);
    Ok(of_values.map(|value| format!("{value}-{}", parts.len())))
}

/// The CRC of the bytes of all parts, from the CRCs and sizes of the parts.
fn joined(algorithm: &str, parts: &[(Vec<u8>, u64)]) -> Option<String> {
    let (polynomial, width) = match algorithm {
        "crc32" => (CrcAlgorithm::Crc32IsoHdlc, 4),
        "crc32c" => (CrcAlgorithm::Crc32Iscsi, 4),
        "crc64nvme" => (CrcAlgorithm::Crc64Nvme, 8),
        _ => return None,
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    let mut parts = parts.iter().map(|(value, size)| (number(value), *size));
    let (mut whole, _) = parts.next()?;
    for (value, size) in parts {
        // Nothing changes a checksum less than no bytes.
        if size > 0 {
            whole = checksum_combine(polynomial, whole, value, size);
        }
    }
    Some(STANDARD.encode(&whole.to_be_bytes()[8 - width..]))
}

/// Checks what the client says of the whole object against what its parts make.
///
/// # Errors
/// `BadDigest`, or `InvalidRequest` when there is nothing to check it against.
pub fn check_declared(
    declared: &BTreeMap<String, String>,
    algorithm: Option<&str>,
    computed: Option<&str>,
) -> S3Result<()> {
    for (name, value) in declared {
        let Some(computed) = computed.filter(|_| algorithm == Some(name.as_str())) else {
            return Err(s3_error!(
                InvalidRequest,
                "The upload was not created with the {name} checksum algorithm, so that x-amz-checksum-{name} cannot be verified."
            ));
        };
        let without_count = computed.split('-').next();
        if value != computed && Some(value.as_str()) != without_count {
            return Err(s3_error!(
                BadDigest,
                "The {name} you specified did not match the calculated checksum."
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(algorithm: &str, bytes: &[u8]) -> String {
        let mut hasher = hasher(&[algorithm.to_owned()]).unwrap();
        hasher.update(bytes);
        by_algorithm(&hasher.finalize()).remove(algorithm).unwrap()
    }

    #[test]
    fn joined_checksums_are_those_of_all_bytes() {
        let parts: [&[u8]; 4] = [b"the first part", b"", b"x", b"and the last"];
        for algorithm in ["crc32", "crc32c", "crc64nvme"] {
            let values: Vec<_> = parts
                .iter()
                .map(|part| (STANDARD.decode(checksum(algorithm, part)).unwrap(), part.len() as u64))
                .collect();
            assert_eq!(joined(algorithm, &values), Some(checksum(algorithm, &parts.concat())), "{algorithm}");
        }
        // Published check value of CRC-32.
        assert_eq!(checksum("crc32", b"123456789"), STANDARD.encode(0xCBF4_3926_u32.to_be_bytes()));
    }

    #[test]
    fn types_and_algorithms_must_go_together() {
        let wanted = |algorithm: &'static str, kind: Option<&'static str>| {
            let kind = kind.map(ChecksumType::from_static);
            wanted(Some(&ChecksumAlgorithm::from_static(algorithm)), kind.as_ref())
        };
        assert!(wanted("CRC64NVME", None).unwrap().unwrap().full_object);
        assert!(!wanted("SHA256", None).unwrap().unwrap().full_object);
        assert!(wanted("CRC32", Some("FULL_OBJECT")).unwrap().unwrap().full_object);
        for (algorithm, kind) in
            [("SHA1", "FULL_OBJECT"), ("CRC64NVME", "COMPOSITE"), ("CRC32", "OTHER"), ("MD4", "COMPOSITE")]
        {
            assert!(wanted(algorithm, Some(kind)).is_err(), "{algorithm} {kind}");
        }
    }
}
