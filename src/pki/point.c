#include "pki/point.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#include "pki/crl.h"

static GENERAL_NAME *make_url(const char *url)
{
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    if (name && text && ASN1_STRING_set(text, url, (int)strlen(url))) {
        GENERAL_NAME_set0_value(name, GEN_URI, text);
        return name;
    }
    GENERAL_NAME_free(name);
    ASN1_IA5STRING_free(text);
    return NULL;
}

DIST_POINT_NAME *point_name(const char *const *urls)
{
    DIST_POINT_NAME *point = DIST_POINT_NAME_new();
    GENERAL_NAMES *names = GENERAL_NAMES_new();
    int ok = point && names;
    for (; ok && *urls; urls++) {
        GENERAL_NAME *name = make_url(*urls);
        ok = name && sk_GENERAL_NAME_push(names, name);
        if (!ok)
            GENERAL_NAME_free(name);
    }
    if (!ok) {
        DIST_POINT_NAME_free(point);
        GENERAL_NAMES_free(names);
        return NULL;
    }
    point->type = 0; /* fullName */
    point->name.fullname = names;
    return point;
}

X509_EXTENSION *point_extension(const char *url)
{
    const char *const urls[] = {url, NULL};
    X509_EXTENSION *ext = NULL;
    CRL_DIST_POINTS *all = CRL_DIST_POINTS_new();
    DIST_POINT *one = DIST_POINT_new();
    int ok = all && one && (one->distpoint = point_name(urls)) && sk_DIST_POINT_push(all, one);
    if (ok)
        ext = X509V3_EXT_i2d(NID_crl_distribution_points, 0, all);
    else
        DIST_POINT_free(one);
    CRL_DIST_POINTS_free(all);
    return ext;
}

static unsigned shard_of_url(const ASN1_STRING *url)
{
    char path[CRL_NAME_MAX];
    const char *text = (const char *)ASN1_STRING_get0_data(url);
    size_t len = (size_t)ASN1_STRING_length(url);
    for (unsigned shard = 1; shard <= CRL_SHARDS_MAX; shard++) {
        size_t n = strlen(crl_url_path(path, shard));
        if (len > n && memcmp(text + len - n, path, n) == 0)
            return shard;
    }
    return 0;
}

static unsigned shard_of_point(const DIST_POINT *point)
{
    unsigned shard = 0;
    if (!point->distpoint || point->distpoint->type != 0)
        return 0;
    const GENERAL_NAMES *names = point->distpoint->name.fullname;
    for (int i = 0; !shard && i < sk_GENERAL_NAME_num(names); i++) {
        int type;
        const void *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type == GEN_URI)
            shard = shard_of_url(value);
    }
    return shard;
}

unsigned point_shard(const X509 *x)
{
    unsigned shard = 0;
    CRL_DIST_POINTS *all = X509_get_ext_d2i(x, NID_crl_distribution_points, NULL, NULL);
    for (int i = 0; !shard && i < sk_DIST_POINT_num(all); i++)
        shard = shard_of_point(sk_DIST_POINT_value(all, i));
    CRL_DIST_POINTS_free(all);
    ERR_clear_error();
    return shard;
}
