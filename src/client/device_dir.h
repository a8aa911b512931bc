/* A device's folder, DIR/240ac4123456: complete, or not there.
 *
 * Everything is made in DIR/240ac4123456.pending and the whole folder gets its name by one
 * rename(2) at the end. Key and request are durable in the pending folder before the request is
 * sent; after an interruption the next run finds them there and asks for the same certificate.
 *
 * A complete folder is never overwritten. One that is replaced is first renamed to
 * DIR/240ac4123456.replaced-<start of its certificate's serial>, once the new one is verified. */
#ifndef SIGNET_CLIENT_DEVICE_DIR_H
#define SIGNET_CLIENT_DEVICE_DIR_H

#include <openssl/x509.h>
#include "client/failure.h"

#define DEVICE_KEY "device.key"
#define DEVICE_CSR "device.csr"
#define DEVICE_CERT "device.crt"
#define DEVICE_CHAIN "chain.pem" /* intermediates */
#define DEVICE_CA "ca.pem"       /* the root */

struct device_dir {
    char mac[24];
    char *final, *pending; /* paths */
    char *aside;           /* where a complete folder goes that is replaced; NULL: there is none */
    int lock;              /* descriptor of the locked pending folder; -1: not held */
    int old;               /* the same of the complete one that is replaced */
    int resumed;           /* key and request are an earlier run's */
    EVP_PKEY *key;
    X509_REQ *csr;
};

/* The folder of a MAC (canonical) in DIR. malloc()ed; NULL: no memory. */
char *device_dir_path(const char *dir, const char *mac) __attribute__((warn_unused_result));

/* Is a file of that name in the folder? */
int device_has(const char *folder, const char *name);

/* Locks a complete folder, as renew, replace and flash do; the descriptor, or -1. */
int device_dir_lock(const char *folder, struct failure *f) __attribute__((warn_unused_result));

/* Takes away what a killed run left half written there. The caller holds the folder's lock. */
void device_dir_sweep(const char *folder);

/* Refuses a final folder that exists (unless replace: then it must be a device's), makes and locks
 * the pending one, and makes (or finds) key and request in it. On failure nothing made by this call
 * is left. device_dir_close() always. */
int device_dir_open(struct device_dir *d, const char *dir, const char *mac, const char *key_type,
                    int replace, struct failure *f) __attribute__((warn_unused_result));

/* Writes the certificates and gives the folder its final name. */
int device_dir_finish(struct device_dir *d, X509 *cert, STACK_OF(X509) * between, X509 *root,
                      struct failure *f) __attribute__((warn_unused_result));

/* Takes a key away that this run made and that no request was made with. */
void device_dir_discard(struct device_dir *d);
void device_dir_close(struct device_dir *d);

#endif
