//! AWS Signature Version 4: every request must carry one; it is verified when credentials are configured.
//! (AWS General Reference, "Signing AWS API requests".)

use crate::error::{
    Failure, INCOMPLETE_SIGNATURE, INVALID_SIGNATURE, MISSING_TOKEN, UNRECOGNIZED_CLIENT,
};
use hmac::{Hmac, Mac};
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, DATE, HeaderName};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// How far a signature's time may lie from ours.
const SKEW_SECONDS_MAX: i64 = 15 * 60;

/// Access key id → secret access key. Empty: signatures are not verified.
#[derive(Clone, Default)]
pub struct Credentials {
    pub secrets: BTreeMap<String, String>,
}

/// Secrets are not shown.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.secrets.keys()).finish()
    }
}

/// A request as far as its signature covers it.
pub struct Signed<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    /// As it came, compressed perhaps.
    pub body: &'a [u8],
}

pub fn check(
    request: &Signed<'_>,
    credentials: &Credentials,
    now_seconds: i64,
) -> Result<(), Failure> {
    let header = request
        .headers
        .get(AUTHORIZATION)
        .map(|value| String::from_utf8_lossy(value.as_bytes()));
    let query = parse_query(request.query);
    let has_query = query.contains_key("X-Amz-Algorithm");
    match header {
        Some(_) if has_query => Err(Failure::new(
            INVALID_SIGNATURE,
            "Found both 'X-Amz-Algorithm' as a query-string param and 'Authorization' as HTTP header.",
        )),
        Some(header) if header.trim().starts_with("AWS4-") => {
            let parameters = check_header(&header, request.headers)?;
            verify(request, &parameters, credentials, now_seconds)
        }
        None if has_query => {
            check_query(&query)?;
            if credentials.secrets.is_empty() {
                return Ok(());
            }
            Err(Failure::new(
                INVALID_SIGNATURE,
                "Signatures in the query string are not supported yet: sign in the Authorization header",
            ))
        }
        _ => Err(Failure::new(
            MISSING_TOKEN,
            "Request is missing Authentication Token",
        )),
    }
}

fn parse_query(query: &str) -> BTreeMap<&str, &str> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect()
}

fn check_query(query: &BTreeMap<&str, &str>) -> Result<(), Failure> {
    let mut message = String::new();
    for parameter in [
        "X-Amz-Algorithm",
        "X-Amz-Credential",
        "X-Amz-Signature",
        "X-Amz-SignedHeaders",
        "X-Amz-Date",
    ] {
        if query.get(parameter).is_none_or(|value| value.is_empty()) {
            let _ = write!(
                message,
                "AWS query-string parameters must include '{parameter}'. "
            );
        }
    }
    if message.is_empty() {
        return Ok(());
    }
    message.push_str("Re-examine the query-string parameters.");
    Err(Failure::new(INCOMPLETE_SIGNATURE, message))
}

/// What an Authorization header says.
struct Parameters {
    algorithm: String,
    credential: String,
    signature: String,
    signed_headers: String,
}

fn check_header(header: &str, headers: &HeaderMap) -> Result<Parameters, Failure> {
    let parameters: BTreeMap<&str, &str> = header
        .split([',', ' '])
        .filter(|part| !part.is_empty())
        .skip(1)
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .collect();
    let mut message = String::new();
    let mut take = |name: &str| {
        let value = parameters.get(name).copied().unwrap_or_default();
        if value.is_empty() {
            let _ = write!(
                message,
                "Authorization header requires '{name}' parameter. "
            );
        }
        value.to_owned()
    };
    let credential = take("Credential");
    let signature = take("Signature");
    let signed_headers = take("SignedHeaders");
    if !headers.contains_key("x-amz-date") && !headers.contains_key(DATE) {
        message.push_str(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ",
        );
    }
    if message.is_empty() {
        return Ok(Parameters {
            algorithm: header.split_whitespace().next().unwrap_or("").to_owned(),
            credential,
            signature,
            signed_headers,
        });
    }
    let _ = write!(message, "Authorization={header}");
    Err(Failure::new(INCOMPLETE_SIGNATURE, message))
}

fn verify(
    request: &Signed<'_>,
    parameters: &Parameters,
    credentials: &Credentials,
    now_seconds: i64,
) -> Result<(), Failure> {
    if credentials.secrets.is_empty() {
        return Ok(());
    }
    if parameters.algorithm != ALGORITHM {
        return Err(Failure::new(
            INCOMPLETE_SIGNATURE,
            format!("Unsupported AWS 'algorithm': '{}'.", parameters.algorithm),
        ));
    }
    let scope: Vec<&str> = parameters
        .credential
        .trim_end_matches('/')
        .split('/')
        .collect();
    let [key_id, date, region, service, terminator] = scope.as_slice() else {
        return Err(Failure::new(
            INCOMPLETE_SIGNATURE,
            format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. \
                 keyid/date/region/service/term, got '{}'",
                parameters.credential
            ),
        ));
    };
    let secret = credentials.secrets.get(*key_id).ok_or_else(|| {
        Failure::new(
            UNRECOGNIZED_CLIENT,
            "The security token included in the request is invalid.",
        )
    })?;
    let time = header_text(request.headers, "x-amz-date");
    check_time(&time, now_seconds)?;
    let canonical = canonical_request(request, &parameters.signed_headers);
    let to_sign = format!(
        "{ALGORITHM}\n{time}\n{date}/{region}/{service}/{terminator}\n{}",
        hex(&Sha256::digest(canonical.as_bytes()))
    );
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in [date, region, service, terminator] {
        key = sign(&key, part.as_bytes()).finalize().into_bytes().to_vec();
    }
    // Compared in constant time by the library.
    let is_right = unhex(&parameters.signature)
        .is_some_and(|given| sign(&key, to_sign.as_bytes()).verify_slice(&given).is_ok());
    let covers_host = parameters
        .signed_headers
        .split(';')
        .any(|name| name.eq_ignore_ascii_case("host"));
    if !covers_host {
        return Err(Failure::new(
            INVALID_SIGNATURE,
            "'Host' must be a 'SignedHeader' in the AWS Authorization.",
        ));
    }
    if is_right {
        return Ok(());
    }
    Err(Failure::new(
        INVALID_SIGNATURE,
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
         Access Key and signing method. Consult the service documentation for details.",
    ))
}

fn sign(key: &[u8], data: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac
}

fn header_text(headers: &HeaderMap, name: &str) -> String {
    headers
        .get(name)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default()
}

fn check_time(time: &str, now_seconds: i64) -> Result<(), Failure> {
    let seconds = parse_time(time).ok_or_else(|| {
        Failure::new(
            INCOMPLETE_SIGNATURE,
            format!("Date must be in ISO-8601 'basic format'. Got '{time}'."),
        )
    })?;
    if (now_seconds - seconds).abs() > SKEW_SECONDS_MAX {
        let relation = if seconds < now_seconds {
            "expired"
        } else {
            "not yet current"
        };
        return Err(Failure::new(
            INVALID_SIGNATURE,
            format!("Signature {relation}: {time} is more than 15 min. from the server's time"),
        ));
    }
    Ok(())
}

/// `20130609T100759Z` as seconds since the epoch.
fn parse_time(time: &str) -> Option<i64> {
    let bytes = time.as_bytes();
    if bytes.len() != 16 || bytes[8] != b'T' || bytes[15] != b'Z' {
        return None;
    }
    let number = |start: usize, end: usize| -> Option<i64> {
        let digits = time.get(start..end)?;
        digits
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| digits.parse().ok())?
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(9, 11)?, number(11, 13)?, number(13, 15)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days of the proleptic Gregorian calendar, with years that begin in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn canonical_request(request: &Signed<'_>, signed_headers: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = parse_query(request.query).into_iter().collect();
    pairs.sort_unstable();
    let query: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut headers = String::new();
    for name in signed_headers.split(';') {
        let values: Vec<String> = name
            .parse::<HeaderName>()
            .map(|name| {
                request
                    .headers
                    .get_all(name)
                    .iter()
                    .map(|value| {
                        let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
                        text.split_whitespace().collect::<Vec<_>>().join(" ")
                    })
                    .collect()
            })
            .unwrap_or_default();
        let _ = writeln!(
            headers,
            "{}:{}",
            name.to_ascii_lowercase(),
            values.join(",")
        );
    }
    let given_hash = header_text(request.headers, "x-amz-content-sha256");
    let actual_hash = hex(&Sha256::digest(request.body));
    // A hash that the client states is what it signed, and must be the body's.
    let payload = if given_hash == "UNSIGNED-PAYLOAD" {
        given_hash
    } else {
        actual_hash
    };
    format!(
        "{}\n{}\n{}\n{headers}\n{signed_headers}\n{payload}",
        request.method,
        request.path,
        query.join("&")
    )
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|index| u8::from_str_radix(&text[index..index + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: i64 = 1_440_938_160;

    fn credentials() -> Credentials {
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_string();
        Credentials {
            secrets: BTreeMap::from([("AKIDEXAMPLE".to_string(), secret)]),
        }
    }

    fn checked(method: &str, authorization: &str, date: &str, query: &str) -> Result<(), Failure> {
        let mut headers = HeaderMap::new();
        headers.insert("host", "example.amazonaws.com".parse().expect("a value"));
        for (name, text) in [("x-amz-date", date), ("authorization", authorization)] {
            // Hyper has refused what is no header's value before a signature is looked at.
            if let Ok(value) = text.parse() {
                headers.insert(name, value);
            }
        }
        let request = Signed {
            method,
            path: "/",
            query,
            headers: &headers,
            body: b"",
        };
        check(&request, &credentials(), NOW)
    }

    const DATED: &str = "20150830T123600Z";
    const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
        SignedHeaders=host;x-amz-date, \
        Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";

    proptest! {
        #[test]
        fn whatever_is_not_a_signature_is_refused(
            authorization in "(AWS4-HMAC-SHA256 )?(Credential=|SignedHeaders=|Signature=|AKIDEXAMPLE|[/,;= ]|[a-f0-9]{2}|\\PC){0,12}",
            date in "(20150830T123600Z|[0-9TZ]{16}|\\PC{0,20})",
            query in "(X-Amz-Algorithm|[&=]|\\PC){0,6}",
        ) {
            prop_assert!(checked("GET", &authorization, &date, &query).is_err());
        }

        #[test]
        fn a_signature_with_one_byte_changed_is_refused(at in any::<prop::sample::Index>(), byte in 0x21..0x7fu8) {
            prop_assert_eq!(checked("GET", SIGNED, DATED, ""), Ok(()));
            let mut changed = SIGNED.as_bytes().to_vec();
            let at = at.index(changed.len());
            // Commas and spaces part alike, a slash ends a scope as well, and hexadecimal digits have two cases.
            prop_assume!(!changed[at].eq_ignore_ascii_case(&byte));
            prop_assume!(!(b", ".contains(&changed[at]) && b", /".contains(&byte)));
            changed[at] = byte;
            let changed = String::from_utf8(changed).expect("ASCII");
            prop_assert!(checked("GET", &changed, DATED, "").is_err(), "{}", changed);
        }

        #[test]
        fn any_time_is_refused_or_read(time in "\\PC{0,20}", digits in "[0-9]{8}T[0-9]{6}Z") {
            let _ = parse_time(&time);
            if let Some(seconds) = parse_time(&digits) {
                prop_assert!((-62_200_000_000..=253_500_000_000).contains(&seconds), "{}", seconds);
            }
        }
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("19700101T000000Z"), Some(0));
        assert_eq!(parse_time("20130609T100759Z"), Some(1_370_772_479));
        assert_eq!(parse_time("20240229T235959Z"), Some(1_709_251_199));
        assert_eq!(parse_time("2013"), None);
        assert_eq!(parse_time("20131309T100759Z"), None);
    }

    /// The example of the AWS documentation ("get-vanilla" of the signature test suite).
    #[test]
    fn verifies_the_documented_example() {
        assert_eq!(checked("GET", SIGNED, DATED, ""), Ok(()));
        let name = |outcome: Result<(), Failure>| outcome.map_err(|failure| failure.name());
        assert_eq!(
            name(checked("POST", SIGNED, DATED, "")),
            Err("InvalidSignatureException")
        );
        let other = SIGNED.replace("SHA256", "SHA512");
        assert_eq!(
            name(checked("GET", &other, DATED, "")),
            Err("IncompleteSignatureException")
        );
    }
}
