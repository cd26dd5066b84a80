//! Certificates for an engine behind a port, in files that are named as Docker names them.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Writes those of an authority, of a server at 127.0.0.1 (`server-…`) and of a client.
pub fn write(folder: &Path) {
    let write = |name: &str, text: String| fs::write(folder.join(name), text).unwrap();
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = authority.self_signed(&authority_key).unwrap();
    write("ca.pem", authority.pem());
    for (prefix, usage) in
        [("server-", ExtendedKeyUsagePurpose::ServerAuth), ("", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let key = KeyPair::generate().unwrap();
        let mut of = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        of.extended_key_usages = vec![usage];
        let certificate = of.signed_by(&key, &authority, &authority_key).unwrap();
        write(&format!("{prefix}cert.pem"), certificate.pem());
        write(&format!("{prefix}key.pem"), key.serialize_pem());
    }
}
