/* Every message: MSG(name, number, from, to, fields). Included several times by msg.h and msg.c.
 * A number is never used again for something else; a change of fields raises MSG_VERSION. */

#define M_URL 512
#define M_NAME 64
#define M_DER (16 * 1024)
#define M_PEM (64 * 1024)
#define M_TEXT 1024

/* Who asks, as the front saw it at TLS: the exact client certificate. No certificate: all empty.
 * The authority believes none of it before it has found that very certificate in the store. */
/* clang-format off */
#define M_CALLER                                                                                   \
    F_bytes(caller_issuer, 32)     /* SHA-256 of the issuer name, DER */                           \
    F_bytes(caller_serial, 20)                                                                     \
    F_bytes(caller_digest, 32)     /* SHA-256 of the certificate, DER */                           \
    F_text(caller_address, M_NAME) /* for the log only */
/* clang-format on */

/* supervisor ↔ its children */
MSG(ready, 1, ANY, SUPERVISOR, F_text(detail, M_TEXT))
MSG(failed, 2, ANY, SUPERVISOR, F_u8(fault) F_text(detail, M_TEXT)) /* fault: enum token_fault */
MSG(peer, 3, SUPERVISOR, AUTHORITY, F_u8(role) F_u32(number))       /* with the socket to it */
MSG(peer_end, 4, AUTHORITY, SUPERVISOR, F_u8(role) F_u32(number) F_text(why, M_TEXT))
MSG(publisher_wanted, 5, AUTHORITY, SUPERVISOR, F_u8(reserved))
MSG(pin_retry, 6, AUTHORITY, SUPERVISOR, F_u8(reserved))
MSG(reload, 8, SUPERVISOR, AUTHORITY, F_u8(reserved)) /* with the new configuration's memfd */
MSG(token_state, 7, SUPERVISOR, AUTHORITY, F_u8(fault) F_u32(signers) F_text(detail, M_TEXT))

/* authority → front: what a front needs, so that it needs no file */
MSG(listener, 10, AUTHORITY, FRONT,
    F_u32(credits) F_bytes(certificate_pem, M_PEM) F_bytes(key_pem, M_PEM))
MSG(chain, 11, AUTHORITY, FRONT,
    F_bytes(issuer_der, M_DER) F_bytes(chain_pem, M_PEM)
        F_u8(ocsp)) /* ocsp: there is a responder */
/* A document for plain HTTP ("/crl", "/ca.cer", "/root-crl", "/root.cer"), with its read-only
 * descriptor; the same path again replaces it. expires 0: never; digest: SHA-256, for the ETag. */
MSG(document, 12, AUTHORITY, FRONT,
    F_text(path, M_NAME) F_text(content_type, M_NAME) F_i64(modified) F_i64(expires)
        F_bytes(digest, 32))
/* The state of these certificates changed: cached OCSP answers on them hold no longer. serials: one
 * after the other, each a length byte and its bytes; empty: all that are cached. */
MSG(ocsp_forget, 13, AUTHORITY, FRONT, F_bytes(serials, 4096))
/* How many ocsp_forget there were so far; with the descriptor of the count (shared_count.h), which
 * is raised before the next one is sent: a front that has received fewer is behind. */
MSG(ocsp_told, 16, AUTHORITY, FRONT, F_u64(count))
/* A profile that EST may name (RFC 7030 section 3.2.2), and its CsrAttrs, DER */
MSG(est_label, 15, AUTHORITY, FRONT, F_text(label, M_NAME) F_bytes(csrattrs, 1024))

/* front → authority: requests; each is answered once by an answer_… of the same id */
MSG(issue, 20, FRONT, AUTHORITY,
    M_CALLER F_text(operation, M_NAME) F_text(profile, M_NAME) F_text(request_id, M_NAME)
        F_bytes(body_digest, 32) F_bytes(csr_digest, 32) F_text(name, M_NAME) F_bytes(spki, 1024)
            F_u8(replace))
/* by serial, or (serial empty) the live one of a MAC */
MSG(revoke, 21, FRONT, AUTHORITY,
    M_CALLER F_text(request_id, M_NAME) F_bytes(body_digest, 32) F_bytes(serial, 20)
        F_text(name, M_NAME) F_u8(reason))
MSG(status, 22, FRONT, AUTHORITY, M_CALLER)
MSG(renew, 23, FRONT, AUTHORITY, /* name and profile are those of the caller's certificate */
    M_CALLER F_text(request_id, M_NAME) F_bytes(body_digest, 32) F_bytes(csr_digest, 32)
        F_text(name, M_NAME) F_bytes(spki, 1024))
MSG(get, 24, FRONT, AUTHORITY, M_CALLER F_bytes(serial, 20))
MSG(list, 25, FRONT, AUTHORITY, /* empty, 0: any; state, board: of their enum, + 1 */
    M_CALLER F_text(name, M_NAME) F_text(operator_name, M_NAME) F_u8(state) F_u8(board) F_i64(from)
        F_i64(to) F_u64(after) F_u32(limit))
/* A request whose exact body the operator signed (CMS, detached). The authority verifies the
 * signature and reads the body itself: a front cannot put other words into an operator's mouth. */
MSG(signed_request, 26, FRONT, AUTHORITY, M_CALLER F_bytes(body, 65536) F_bytes(signature, 16384))
/* What became of the board; board: enum board_state */
MSG(report, 27, FRONT, AUTHORITY, M_CALLER F_bytes(serial, 20) F_u8(board))

/* A device's enrolment by a password that signetctl made (EST, RFC 7030 section 3.2.3) */
MSG(enrol, 28, FRONT, AUTHORITY,
    F_text(caller_address, M_NAME) F_text(user, M_NAME) F_bytes(password_sha256, 32)
        F_text(profile, M_NAME) F_bytes(body_digest, 32) F_bytes(csr_digest, 32)
            F_text(name, M_NAME) F_bytes(spki, 1024))
/* OCSP (RFC 6960): certids as pki/ocsp.h packs them; nonce empty: the answer may be kept for others
 */
MSG(ocsp, 29, FRONT, AUTHORITY,
    F_text(caller_address, M_NAME) F_bytes(certids, 1024) F_bytes(nonce, 131))

/* authority → front and signetctl: answers. code: enum err_code */
MSG(answer_error, 30, AUTHORITY, ASKER, F_u32(code) F_u32(retry_after) F_text(detail, M_TEXT))
MSG(answer_certificate, 31, AUTHORITY, ASKER, F_bytes(serial, 20) F_bytes(der, M_DER))
MSG(answer_revoked, 32, AUTHORITY, ASKER,
    F_bytes(serial, 20) F_i64(revoked_at) F_u8(reason) F_u32(count)) /* serial empty: of several */
MSG(answer_status, 33, AUTHORITY, ASKER,
    F_u8(ready) F_u8(detailed) F_u32(signers_ready) F_u32(signers_wanted) F_u8(token_fault)
        F_text(token_detail, M_TEXT) F_text(custody, M_TEXT) F_u64(issued) F_u64(revoked)
            F_u64(orphans) F_u64(pending) F_u64(crl_number) F_i64(crl_this_update)
                F_i64(crl_next_update) F_i64(issuer_not_after) F_i64(started_at) F_u64(journal_seq)
                    F_text(problem, M_TEXT) F_i64(time) F_i64(listener_not_after)
                        F_i64(responder_not_after) F_text(operator_name, M_NAME)
                            F_u32(roles)) /* who asks; "": nobody */
/* One certificate of get (alone) or list (then answer_page). der empty in a list; board empty for
 * what is no device's. */
MSG(answer_row, 34, AUTHORITY, ASKER,
    F_u64(id) F_bytes(serial, 20) F_text(state, M_NAME) F_text(board, M_NAME)
        F_text(profile, M_NAME) F_text(name, M_NAME) F_text(operator_name, M_NAME) F_i64(not_before)
            F_i64(not_after) F_i64(issued_at) F_i64(revoked_at) F_u8(reason) F_bytes(der, M_DER))
MSG(answer_page, 35, AUTHORITY, ASKER, F_u32(count) F_u64(next)) /* next 0: no more */
MSG(answer_reported, 36, AUTHORITY, ASKER, F_bytes(serial, 20) F_text(board, M_NAME))

/* A whole OCSPResponse. next_update 0: for this asker alone, not to be kept. */
MSG(answer_ocsp, 37, AUTHORITY, FRONT,
    F_bytes(response, M_DER) F_i64(this_update) F_i64(next_update))

/* authority ↔ signer. custody: enum custody_bit. responder_spki: of the OCSP responder's key;
 * empty: none is configured */
MSG(signer_hello, 40, SIGNER, AUTHORITY,
    F_u32(custody) F_text(token, M_TEXT) F_bytes(responder_spki, 1024) F_u32(responder_custody))
MSG(sign, 41, AUTHORITY, SIGNER, F_u8(key) F_u8(alg) F_bytes(digest, 48)) /* enum token_key */
MSG(signed, 42, SIGNER, AUTHORITY, F_bytes(signature, 512))
MSG(sign_failed, 43, SIGNER, AUTHORITY, F_u8(fault) F_text(detail, M_TEXT))

/* authority ↔ publisher: one CRL */
MSG(crl_job, 50, AUTHORITY, PUBLISHER,
    F_u32(issuer) F_u32(shard) F_u64(number) F_i64(this_update) F_i64(next_update)
        F_i64(expired_before) F_u64(journal_seq) F_bytes(journal_hash, 32)
            F_bytes(issuer_sha256, 32))
MSG(crl_digest, 51, PUBLISHER, AUTHORITY, F_bytes(digest, 48))
MSG(crl_signature, 52, AUTHORITY, PUBLISHER, F_bytes(signature, 512))
MSG(crl_done, 53, PUBLISHER, AUTHORITY, F_u64(entries) F_u64(size) F_bytes(sha256, 32))
MSG(crl_failed, 54, PUBLISHER, AUTHORITY, F_text(why, M_TEXT))

/* signetctl → authority, over the admin socket (SO_PEERCRED) */
MSG(admin_operator_issue, 60, ADMIN, AUTHORITY,
    F_text(name, M_NAME) F_u32(roles) F_bytes(csr_digest, 32) F_bytes(spki, 1024))
MSG(admin_operator_revoke, 61, ADMIN, AUTHORITY, F_text(name, M_NAME) F_u8(reason))
MSG(admin_operator_list, 62, ADMIN, AUTHORITY, F_text(after, M_NAME)) /* pages, by name */
MSG(admin_status, 63, ADMIN, AUTHORITY, F_u8(reserved))
MSG(admin_pin_retry, 64, ADMIN, AUTHORITY, F_u8(reserved))
MSG(admin_clock_accept, 65, ADMIN, AUTHORITY, F_u8(reserved))
MSG(admin_crl_rebuild, 66, ADMIN, AUTHORITY, F_u8(reserved))
/* signetctl import: a certificate that this CA issued and the store does not know */
MSG(admin_import, 67, ADMIN, AUTHORITY,
    F_text(profile, M_NAME) F_text(name, M_NAME) F_bytes(der, M_DER))
/* A password that signetctl made, whose SHA-256 alone comes here: for a MAC, or ("") for any board,
 * count of them. Of not_after and lifetime (seconds from now) one is 0. */
MSG(admin_enrolment_add, 68, ADMIN, AUTHORITY,
    F_text(user, M_NAME) F_bytes(password_sha256, 32) F_text(profile, M_NAME) F_text(mac, M_NAME)
        F_u32(count) F_i64(not_after) F_i64(lifetime))
MSG(admin_enrolment_list, 69, ADMIN, AUTHORITY, F_text(after, M_NAME)) /* pages, by user */
MSG(answer_operator, 70, AUTHORITY, ADMIN, /* one a row, then answer_end */
    F_text(name, M_NAME) F_u32(roles) F_text(state, M_NAME) F_bytes(serial, 20) F_i64(not_after))
MSG(answer_end, 71, AUTHORITY, ADMIN, /* count: rows; of crl_rebuild the number to wait beyond */
    F_u32(count) F_u8(more))

MSG(admin_enrolment_end, 73, ADMIN, AUTHORITY, F_text(user, M_NAME))
MSG(answer_enrolment, 74, AUTHORITY, ADMIN, /* of a list one a row, then answer_end */
    F_text(user, M_NAME) F_text(profile, M_NAME) F_text(mac, M_NAME) F_text(state, M_NAME)
        F_u32(uses) F_u32(uses_max) F_i64(not_after))

#undef M_CALLER
