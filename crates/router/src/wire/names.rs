//! The names of fields that the router has anything to do with, told from all others in one step.

/// A field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    /// Passed on as it is.
    Other,
    /// As [`Self::Other`], but some frameworks read it as one of the router's own (`X_Forwarded_For`): not passed on.
    Disguised,
    Connection,
    ContentLength,
    Cookie,
    Date,
    Expect,
    Host,
    Http2Settings,
    KeepAlive,
    Proxy,
    ProxyAuthenticate,
    ProxyAuthorization,
    ProxyConnection,
    Server,
    SetCookie,
    Te,
    TransferEncoding,
    Upgrade,
    UserAgent,
    Via,
    Forwarded,
    ForwardedFor,
    ForwardedPort,
    ForwardedProto,
    RequestId,
    RequestStart,
}

/// Says which name this is, in any letter case.
pub(crate) fn classify(name: &[u8]) -> Name {
    let candidates: &[(&[u8], Name)] = match name.len() {
        2 => &[(b"te", Name::Te)],
        3 => &[(b"via", Name::Via)],
        4 => &[(b"host", Name::Host), (b"date", Name::Date)],
        5 => &[(b"proxy", Name::Proxy)],
        6 => &[(b"cookie", Name::Cookie), (b"expect", Name::Expect), (b"server", Name::Server)],
        7 => &[(b"upgrade", Name::Upgrade)],
        9 => &[(b"forwarded", Name::Forwarded)],
        10 => &[
            (b"user-agent", Name::UserAgent),
            (b"connection", Name::Connection),
            (b"set-cookie", Name::SetCookie),
            (b"keep-alive", Name::KeepAlive),
        ],
        12 => &[(b"x-request-id", Name::RequestId)],
        14 => &[(b"content-length", Name::ContentLength), (b"http2-settings", Name::Http2Settings)],
        15 => &[(b"x-forwarded-for", Name::ForwardedFor), (b"x-request-start", Name::RequestStart)],
        16 => &[(b"proxy-connection", Name::ProxyConnection), (b"x-forwarded-port", Name::ForwardedPort)],
        17 => &[(b"transfer-encoding", Name::TransferEncoding), (b"x-forwarded-proto", Name::ForwardedProto)],
        18 => &[(b"proxy-authenticate", Name::ProxyAuthenticate)],
        19 => &[(b"proxy-authorization", Name::ProxyAuthorization)],
        _ => &[],
    };
    let found = candidates.iter().find(|(candidate, _)| name.eq_ignore_ascii_case(candidate));
    match found {
        Some((_, found)) => *found,
        None if memchr::memchr(b'_', name).is_some() => disguised(name),
        None => Name::Other,
    }
}

fn disguised(name: &[u8]) -> Name {
    let plain: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
    match classify(&plain) {
        Name::ForwardedFor
        | Name::ForwardedPort
        | Name::ForwardedProto
        | Name::RequestId
        | Name::RequestStart
        | Name::ContentLength
        | Name::TransferEncoding => Name::Disguised,
        _ => Name::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(classify(b"HOST"), Name::Host);
        assert_eq!(classify(b"X-Forwarded-For"), Name::ForwardedFor);
        assert_eq!(classify(b"x-forwarded-fox"), Name::Other);
        assert_eq!(classify(b""), Name::Other);
    }

    #[test]
    fn underscores_disguise_only_what_is_the_routers() {
        assert_eq!(classify(b"X_Forwarded-For"), Name::Disguised);
        assert_eq!(classify(b"transfer_encoding"), Name::Disguised);
        assert_eq!(classify(b"x_custom"), Name::Other);
    }
}
