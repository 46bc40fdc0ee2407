/* The parts of a recurrence between its matrix products, for one batch on one core: LSTM gates,
Gaussian windows, reading, writing, and the eye.

Arrays are row-major. `real` is float, or double with -DDOUBLE. Lines of images and filters are
padded with zeros to whole vectors ("padded" below), so inner loops have no remainders. An array
marked "product" is the input or output of a matrix product: of `real`, or of bfloat16 where
`rounded` is 1. Strides count elements. Counts and addresses are 64 bits wide.

The mathematics is that of drawbench/attention.py (Gregor et al. 2015, equations 21-29); the tests
compare the two.
B images, C channels, H rows, W columns, N the side of a patch, U units of an LSTM, Z latents. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef ptrdiff_t count;

#ifdef DOUBLE
typedef double real;
typedef int64_t integer;
enum { MANTISSA = 52, LEAST = -1022, DEGREE = 13, FLOOR = -104 };
/* 1.5 * 2^MANTISSA: adding it rounds to an integer, held in the lowest bits of the sum. */
#define ROUNDER 6755399441055744.0
#else
typedef float real;
typedef int32_t integer;
enum { MANTISSA = 23, LEAST = -126, DEGREE = 7, FLOOR = -46 };
#define ROUNDER 12582912.0f
#endif

enum { LANES = BYTES / sizeof(real), NUMBERS = 5 };
typedef real vec __attribute__((vector_size(BYTES)));
typedef integer mask __attribute__((vector_size(BYTES)));
typedef float single __attribute__((vector_size(4 * LANES)));
typedef uint32_t word __attribute__((vector_size(4 * LANES)));

#define INLINE static inline __attribute__((always_inline))
#define LN2 ((real)0.693147180559945309417232)

INLINE count padded(count size) { return (size + LANES - 1) / LANES * LANES; }

/* -------------------------------------------------------------------------------------- vectors */

INLINE vec load(const real *from, count n) {
    vec v = {0};
    if (n >= LANES)
        memcpy(&v, from, sizeof v);
    else
        memcpy(&v, from, n * sizeof(real));
    return v;
}

INLINE void store(real *to, count n, vec v) {
    if (n >= LANES)
        memcpy(to, &v, sizeof v);
    else
        memcpy(to, &v, n * sizeof(real));
}

/* Load n elements from a product. */
INLINE vec take(const void *from, count at, count n, count rounded) {
    if (!rounded)
        return load((const real *)from + at, n);
    uint16_t b[LANES] = {0};
    const uint16_t *start = (const uint16_t *)from + at;
    if (n >= LANES)
        memcpy(b, start, sizeof b);
    else
        memcpy(b, start, n * sizeof *start);
    word w;
    /* gcc vectorizes this loop, but not __builtin_convertvector between 16 and 32 bits. */
    for (int k = 0; k < LANES; k++)
        w[k] = b[k];
    return __builtin_convertvector((single)(w << 16), vec);
}

/* Store n elements in a product, rounded to the nearest, ties to even. */
INLINE void give(void *to, count at, count n, count rounded, vec v) {
    if (!rounded) {
        store((real *)to + at, n, v);
        return;
    }
    word w = (word)__builtin_convertvector(v, single);
    uint16_t b[LANES], *start = (uint16_t *)to + at;
    w = (w + 0x7fff + ((w >> 16) & 1)) >> 16;
    for (int k = 0; k < LANES; k++)
        b[k] = (uint16_t)w[k];
    if (n >= LANES)
        memcpy(start, b, sizeof b);
    else
        memcpy(start, b, n * sizeof *start);
}

INLINE vec pick(mask which, vec yes, vec no) {
    return (vec)(((mask)yes & which) | ((mask)no & ~which));
}

INLINE vec pixels(count first) {
    vec v;
    for (int k = 0; k < LANES; k++)
        v[k] = (real)(first + k + 1);
    return v;
}

INLINE real sum(vec v) {
#ifdef __clang__
    real total = 0;
    for (int k = 0; k < LANES; k++)
        total += v[k];
    return total;
#else
    mask lane;
    for (int k = 0; k < LANES; k++)
        lane[k] = k;
#pragma GCC unroll 4
    for (int apart = LANES / 2; apart; apart /= 2)
        v += __builtin_shuffle(v, lane ^ apart);
    return v[0];
#endif
}

/* 2^x for LEAST <= x <= -LEAST, to about one unit in the last place: the Taylor series of 2^f for
|f| <= 1/2, and an integer exponent. */
INLINE vec exp2_(vec x) {
    static const double series[] = {
        1.0, 0.693147180559945309417232, 0.240226506959100712333552,
        0.0555041086648215799531423, 0.00961812910762847716197908, 0.00133335581464284434234123,
        0.000154035303933816099544371, 1.52527338040598402800254e-5, 1.32154867901443094884037e-6,
        1.01780860092396997274900e-7, 7.05491162080112332987540e-9, 4.44553827187081149759640e-10,
        2.56784359934882051419496e-11, 1.36914888539041240886000e-12,
    };
    vec shifted = x + (real)ROUNDER;
    vec f = x - (shifted - (real)ROUNDER);
    vec y = (vec){0} + (real)series[DEGREE];
#pragma GCC unroll 16
    for (int k = DEGREE - 1; k >= 0; k--)
        y = y * f + (real)series[k];
    return (vec)((mask)y + ((mask)shifted << MANTISSA));
}

INLINE vec exp_(vec x) {
    x = x * (1 / LN2);
    x = pick(x < (real)LEAST, (vec){0} + (real)LEAST, x);
    x = pick(x > (real)-LEAST, (vec){0} - (real)LEAST, x);
    return exp2_(x); /* a NaN passes both comparisons, and comes out as one */
}

INLINE vec sigmoid(vec x) { return 1 / (1 + exp_(-x)); }
INLINE vec tanh_(vec x) { return 2 * sigmoid(2 * x) - 1; }

/* ----------------------------------------------------------------------------------------- LSTM */

/* Compute the gates and the next state from the weighted inputs. Gates are in torch's order: enter,
keep, candidate, leave.

sums, product (B, 4U), the weighted inputs; constant (B, 4U), added to them, or none; gates (B, 4U),
after their nonlinearities; cell and next (B, U), the cell before and after; squashed (B, U), tanh
of the cell after. The new hidden state goes to hidden (B, U) and to row, product (B, U); either may
be none. */
void lstm_forward(count batch, count units, count rounded, const void *sums, const real *constant,
                  real *gates, const real *cell, real *next, real *squashed, real *hidden,
                  count hidden_stride, void *row, count row_stride) {
    for (count b = 0; b < batch; b++) {
        for (count u = 0; u < units; u += LANES) {
            count n = units - u, at = b * units + u;
            vec gate[4];
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++) {
                count in = b * 4 * units + k * units + u;
                vec x = take(sums, in, n, rounded);
                if (constant)
                    x += load(constant + in, n);
                gate[k] = k == 2 ? tanh_(x) : sigmoid(x);
                store(gates + in, n, gate[k]);
            }
            vec after = gate[1] * load(cell + at, n) + gate[0] * gate[2];
            vec squash = tanh_(after);
            vec state = gate[3] * squash;
            store(next + at, n, after);
            store(squashed + at, n, squash);
            if (hidden)
                store(hidden + b * hidden_stride + u, n, state);
            if (row)
                give(row, b * row_stride + u, n, rounded, state);
        }
    }
}

/* Backward of lstm_forward: the gradient of the sums, product (B, 4U), given that of the new hidden
state, which is the sum of full (B, U) and of the products one, two and three (B, U); any may be
none. into_cell (B, U) is taken one step back in place. */
void lstm_backward(count batch, count units, count rounded, const real *gates, const real *cell,
                   const real *squashed, const real *full, const void *one, count one_stride,
                   const void *two, count two_stride, const void *three, count three_stride,
                   real *into_cell, void *into_sums) {
    for (count b = 0; b < batch; b++) {
        for (count u = 0; u < units; u += LANES) {
            count n = units - u, at = b * units + u, in = b * 4 * units + u;
            vec enter = load(gates + in, n), keep = load(gates + in + units, n);
            vec candidate = load(gates + in + 2 * units, n);
            vec leave = load(gates + in + 3 * units, n);
            vec squash = load(squashed + at, n), before = load(cell + at, n);
            vec into = {0};
            if (full)
                into += load(full + at, n);
            if (one)
                into += take(one, b * one_stride + u, n, rounded);
            if (two)
                into += take(two, b * two_stride + u, n, rounded);
            if (three)
                into += take(three, b * three_stride + u, n, rounded);
            vec carried = load(into_cell + at, n) + into * leave * (1 - squash * squash);
            give(into_sums, in, n, rounded, carried * candidate * enter * (1 - enter));
            give(into_sums, in + units, n, rounded, carried * before * keep * (1 - keep));
            give(into_sums, in + 2 * units, n, rounded,
                 carried * enter * (1 - candidate * candidate));
            give(into_sums, in + 3 * units, n, rounded, into * squash * leave * (1 - leave));
            store(into_cell + at, n, carried * keep);
        }
    }
}

/* -------------------------------------------------------------------------------------- latents */

/* Put z = mu + exp(log sigma) noise into row, product (B, Z). sums, product (B, 2Z), holds mu and
log sigma; spread (B, Z) keeps exp(log sigma) noise. */
void latent_forward(count batch, count latent, count rounded, const void *sums, const real *noise,
                    real *mu, real *log_sigma, count stride, real *spread, void *row,
                    count row_stride) {
    for (count b = 0; b < batch; b++) {
        for (count z = 0; z < latent; z += LANES) {
            count n = latent - z, at = b * stride + z;
            vec mean = take(sums, b * 2 * latent + z, n, rounded);
            vec log_deviation = take(sums, b * 2 * latent + latent + z, n, rounded);
            vec away = exp_(log_deviation) * load(noise + at, n);
            store(mu + at, n, mean);
            store(log_sigma + at, n, log_deviation);
            store(spread + b * latent + z, n, away);
            give(row, b * row_stride + z, n, rounded, mean + away);
        }
    }
}

/* Backward of latent_forward: the gradient of the sums, product (B, 2Z), given those of z, product
(B, Z), and of mu and log sigma. */
void latent_backward(count batch, count latent, count rounded, const void *into_z, count z_stride,
                     const real *into_mu, const real *into_log_sigma, count stride,
                     const real *spread, void *into_sums) {
    for (count b = 0; b < batch; b++) {
        for (count z = 0; z < latent; z += LANES) {
            count n = latent - z, at = b * stride + z;
            vec into = take(into_z, b * z_stride + z, n, rounded);
            give(into_sums, b * 2 * latent + z, n, rounded, into + load(into_mu + at, n));
            vec scale = load(into_log_sigma + at, n) + into * load(spread + b * latent + z, n);
            give(into_sums, b * 2 * latent + latent + z, n, rounded, scale);
        }
    }
}

/* ---------------------------------------------------------------------------------------- words */

/* Attend to the words of captions (Mansimov et al. 2016): weights (B, K) = softmax over words of
score . tanh(key + query), and their sum over words (B, K, S), which goes to row, product (B, S).
keys (B, K, A), score (A), query (B, A). */
void words_forward(count batch, count number, count size, count agree, count rounded,
                   const real *words, const real *keys, const real *score, const real *query,
                   count query_stride, real *weights, void *row, count row_stride) {
    for (count b = 0; b < batch; b++) {
        const real *asked = query + b * query_stride;
        real *weight = weights + b * number, most = -INFINITY, total = 0;
        for (count k = 0; k < number; k++) {
            const real *key = keys + (b * number + k) * agree;
            vec match = {0};
            for (count a = 0; a < agree; a += LANES) {
                count n = agree - a;
                match += load(score + a, n) * tanh_(load(key + a, n) + load(asked + a, n));
            }
            weight[k] = sum(match);
            most = weight[k] > most ? weight[k] : most;
        }
        for (count k = 0; k < number; k += LANES) {
            count n = number - k;
            store(weight + k, n, exp_(load(weight + k, n) - most));
        }
        for (count k = 0; k < number; k++)
            total += weight[k];
        for (count k = 0; k < number; k++)
            weight[k] /= total;
        for (count s = 0; s < size; s += LANES) {
            vec mixed = {0};
            for (count k = 0; k < number; k++)
                mixed += weight[k] * load(words + (b * number + k) * size + s, size - s);
            give(row, b * row_stride + s, size - s, rounded, mixed);
        }
    }
}

/* Backward of words_forward, given the gradient of what it put into row, product (B, S). That of
the query (B, A), with the query's stride, is set; those of words, keys and score are added to. */
void words_backward(count batch, count number, count size, count agree, count rounded,
                    const real *words, const real *keys, const real *score, const real *query,
                    count query_stride, const real *weights, const void *into, count into_stride,
                    real *into_query, real *into_words, real *into_keys, real *into_score) {
    for (count b = 0; b < batch; b++) {
        const real *asked = query + b * query_stride, *weight = weights + b * number;
        real *into_asked = into_query + b * query_stride;
        vec mean = {0}; /* of the gradients of the weights, weighted */
        for (count s = 0; s < size; s += LANES) {
            vec mixed = {0};
            for (count k = 0; k < number; k++)
                mixed += weight[k] * load(words + (b * number + k) * size + s, size - s);
            mean += mixed * take(into, b * into_stride + s, size - s, rounded);
        }
        memset(into_asked, 0, agree * sizeof(real));
        for (count k = 0; k < number; k++) {
            count at = (b * number + k) * size, key = (b * number + k) * agree;
            vec change = -mean;
            for (count s = 0; s < size; s += LANES) {
                count n = size - s;
                vec one = take(into, b * into_stride + s, n, rounded);
                change += one * load(words + at + s, n);
                store(into_words + at + s, n, load(into_words + at + s, n) + weight[k] * one);
            }
            real into_match = weight[k] * sum(change);
            for (count a = 0; a < agree; a += LANES) {
                count n = agree - a;
                vec match = tanh_(load(keys + key + a, n) + load(asked + a, n));
                vec inside = into_match * load(score + a, n) * (1 - match * match);
                store(into_score + a, n, load(into_score + a, n) + into_match * match);
                store(into_keys + key + a, n, load(into_keys + key + a, n) + inside);
                store(into_asked + a, n, load(into_asked + a, n) + inside);
            }
        }
    }
}

/* -------------------------------------------------------------------- small products, per image */

/* The indices first <= i < end; none if end is not above first. */
typedef struct {
    count first, end;
} Span;

/* Return the least span that has all of `number` spans, or all of 0 <= i < size without spans. */
INLINE Span joined(const Span *spans, count number, count size) {
    if (!spans)
        return (Span){0, size};
    Span all = spans[0];
    for (count k = 1; k < number; k++) {
        all.first = spans[k].first < all.first ? spans[k].first : all.first;
        all.end = spans[k].end > all.end ? spans[k].end : all.end;
    }
    return all;
}

INLINE void times_tile(const int rows, const int columns, count k, const real *a, count row,
                       count column, const real *x, count p, real *y, int add) {
    vec acc[4][2];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < columns; c++)
            acc[r][c] = add ? load(y + r * p + c * LANES, LANES) : (vec){0};
    for (count l = 0; l < k; l++)
#pragma GCC unroll 2
        for (int c = 0; c < columns; c++) {
            vec from = load(x + l * p + c * LANES, LANES);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++)
                acc[r][c] += a[r * row + l * column] * from;
        }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int c = 0; c < columns; c++)
            store(y + r * p + c * LANES, LANES, acc[r][c]);
}

/* y (n, p) = a (n, k) x (k, p), or += with `add`, in some columns of x and y, whole vectors. Lines
of x and y are padded, a is strided. Outside its span, if there are spans (n), a line of a counts as
zeros. */
static void times(count n, count k, count p, Span part, const real *a, count row, count column,
                  const Span *spans, const real *x, real *y, int add) {
    for (count i = 0; i < n;) {
        int rows = n - i >= 4 ? 4 : n - i >= 2 ? 2 : 1;
        const Span span = joined(spans ? spans + i : 0, rows, k);
        const count l = span.end - span.first;
        for (count j = add && l <= 0 ? part.end : part.first; j < part.end;) {
            int columns = part.end - j >= 2 * LANES ? 2 : 1;
            const real *from = a + i * row + span.first * column, *of = x + span.first * p + j;
            real *to = y + i * p + j;
            switch (rows * 2 + columns) {
            case 10: times_tile(4, 2, l, from, row, column, of, p, to, add); break;
            case 9: times_tile(4, 1, l, from, row, column, of, p, to, add); break;
            case 6: times_tile(2, 2, l, from, row, column, of, p, to, add); break;
            case 5: times_tile(2, 1, l, from, row, column, of, p, to, add); break;
            case 4: times_tile(1, 2, l, from, row, column, of, p, to, add); break;
            default: times_tile(1, 1, l, from, row, column, of, p, to, add);
            }
            j += columns * LANES;
        }
        i += rows;
    }
}

INLINE void dots_tile(const int rows, const int columns, count p, Span part, const real *a,
                      const real *x, real *y, count row, int add) {
    vec acc[2][4];
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++)
            acc[r][c] = (vec){0};
    for (count l = part.first; l < part.end; l += LANES)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) {
            vec from = load(x + c * p + l, LANES);
#pragma GCC unroll 2
            for (int r = 0; r < rows; r++)
                acc[r][c] += load(a + r * p + l, LANES) * from;
        }
#pragma GCC unroll 2
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++)
            y[r * row + c] = (add ? y[r * row + c] : 0) + sum(acc[r][c]);
}

/* y[i, j] = sum over l in part, whole vectors, of a[i, l] x[j, l], or += with `add`, for n lines of
a and m lines of x, padded to p. With spans (n) only those j that are in the span of i. */
static void dots(count n, count m, count p, Span part, const real *a, const real *x,
                 const Span *spans, real *y, count row, int add) {
    for (count i = 0; i < n;) {
        int rows = n - i >= 2 ? 2 : 1;
        const Span span = joined(spans ? spans + i : 0, rows, m);
        for (count j = span.first; j < span.end;) {
            int columns = span.end - j >= 4 ? 4 : 1;
            const real *left = a + i * p, *right = x + j * p;
            real *to = y + i * row + j;
            switch (rows * 4 + columns) {
            case 12: dots_tile(2, 4, p, part, left, right, to, row, add); break;
            case 9: dots_tile(2, 1, p, part, left, right, to, row, add); break;
            case 8: dots_tile(1, 4, p, part, left, right, to, row, add); break;
            default: dots_tile(1, 1, p, part, left, right, to, row, add);
            }
            j += columns;
        }
        i += rows;
    }
}

/* -------------------------------------------------------------------------------------- windows */

/* What all windows of a map share. A bounded map squashes each number to middle + radius
tanh(number / radius); otherwise numbers are clamped to +-limit, with gradient 0 beyond. */
typedef struct {
    count height, width, patch, bounded;
    real middle[NUMBERS], radius[NUMBERS], limit[NUMBERS];
    real clip; /* largest norm of a gradient that one image sends back, or 0 */
} Map;

typedef struct {
    real x, y;      /* centre, pixels numbered from 1 */
    real precision; /* 1 / variance */
    real stride;    /* pixels */
    real intensity; /* gamma */
} Window;

static Window window(const Map *map, const real *numbers) {
    real n[NUMBERS];
    for (int k = 0; k < NUMBERS; k++) {
        if (map->bounded)
            n[k] = map->middle[k] + map->radius[k] * (real)tanh(numbers[k] / map->radius[k]);
        else
            n[k] = numbers[k] > map->limit[k]    ? map->limit[k]
                   : numbers[k] < -map->limit[k] ? -map->limit[k]
                                                 : numbers[k];
    }
    count longer = map->height > map->width ? map->height : map->width;
    return (Window){
        .x = (map->width + 1) / (real)2 * (n[0] + 1),
        .y = (map->height + 1) / (real)2 * (n[1] + 1),
        .precision = (real)exp(-n[2]),
        .stride = (longer - 1) / (real)(map->patch > 1 ? map->patch - 1 : 1) * (real)exp(n[3]),
        .intensity = (real)exp(n[4]),
    };
}

/* One filter: its centre, and the pixel nearest to it, where its logarithm is exactly 0. */
typedef struct {
    real centre, nearest, step;
} Filter;

INLINE Filter filter(real centre, real stride, count i, count patch, count size) {
    Filter f = {.step = (i + 1 - patch / (real)2 - (real)0.5) * stride};
    f.centre = centre + f.step;
    real near = (real)rint(f.centre);
    f.nearest = near > size ? size : near < 1 ? 1 : near;
    return f;
}

/* The logarithm to base 2 of a filter at LANES pixels, before it is normalized. It is never below
FLOOR: far beyond what rounding can tell from 0, yet large enough to keep products with it clear of
subnormal numbers, whose arithmetic can be tens of times slower. */
INLINE vec logarithm(Filter f, vec pixel, real factor) {
    vec log = (pixel - f.nearest) * (pixel + (f.nearest - 2 * f.centre)) * factor;
    return pick(log < (real)FLOOR, (vec){0} + (real)FLOOR, log);
}

/* The pixels at which a filter's logarithm may be above FLOOR. */
INLINE Span support(Filter f, real factor, count size) {
    real away = f.nearest - f.centre;
    real reach = (real)sqrt((real)FLOOR / factor + away * away);
    if (!(reach < size)) /* or nothing of it is a number */
        return (Span){0, size};
    count first = (count)floor(f.centre - reach) - 1, end = (count)ceil(f.centre + reach);
    return (Span){first < 0 ? 0 : first, end > size ? size : end};
}

/* F (N, padded) along an axis: each line sums to 1, with zeros behind the last pixel. spans (N) get
the pixels of each line beyond which it is as good as 0. */
static void filters(real centre, Window w, count patch, count size, real *to, Span *spans) {
    const real factor = -w.precision / (2 * LN2);
    const vec first = pixels(0), least = exp2_((vec){0} + (real)FLOOR);
    for (count i = 0; i < patch; i++, to += padded(size)) {
        Filter f = filter(centre, w.stride, i, patch, size);
        const Span span = spans[i] = support(f, factor, size);
        vec total = {0};
        for (count a = 0; a < size; a += LANES) {
            vec pixel = first + (real)a;
            vec value = a + LANES <= span.first || a >= span.end
                            ? least
                            : exp2_(logarithm(f, pixel, factor));
            value = pick(pixel > (real)size, (vec){0}, value);
            total += value;
            store(to + a, LANES, value);
        }
        real scale = 1 / sum(total);
        for (count a = 0; a < size; a += LANES)
            store(to + a, LANES, load(to + a, LANES) * scale);
    }
}

/* Backward of filters: the gradients of centre, log variance and log stride along an axis. */
static void filters_backward(real centre, Window w, count patch, count size, const Span *spans,
                             const real *bank, const real *into, real back[3]) {
    const real factor = -w.precision / (2 * LN2);
    const vec first = pixels(0);
    back[0] = 0;
    for (count i = 0; i < patch; i++, bank += padded(size), into += padded(size)) {
        Filter f = filter(centre, w.stride, i, patch, size);
        const Span span = spans[i];
        const count start = span.first / LANES * LANES;
        vec product = {0}, away = {0}, spread = {0};
        for (count a = start; a < span.end; a += LANES)
            product += load(bank + a, LANES) * load(into + a, LANES);
        const real mean = sum(product);
        for (count a = start; a < span.end; a += LANES) {
            vec pixel = first + (real)a;
            /* These sum to 0, so distances may be taken from any origin. */
            vec gradient = load(bank + a, LANES) * (load(into + a, LANES) - mean);
            away += gradient * (pixel - f.nearest);
            spread += gradient * logarithm(f, pixel, factor);
        }
        real towards = w.precision * sum(away);
        back[0] += towards;
        back[1] -= LN2 * sum(spread);
        back[2] += towards * f.step;
    }
}

/* Return the whole vectors that have all of some spans along a line. */
INLINE Span vectors(const Span *spans, count number) {
    Span all = joined(spans, number, 0);
    return (Span){all.first / LANES * LANES, padded(all.end)};
}

/* The filters that each pixel is in, behind the pixels that each filter has. */
static const Span *spans_of_pixels(Span *spans, count n, count size) {
    Span *pixel = spans + n;
    for (count a = 0; a < size; a++)
        pixel[a] = (Span){n, 0};
    for (count i = 0; i < n; i++)
        for (count a = spans[i].first; a < spans[i].end; a++) {
            pixel[a].first = i < pixel[a].first ? i : pixel[a].first;
            pixel[a].end = i + 1;
        }
    return pixel;
}

/* The spans of the filters along an axis, as `filters` gives them. */
static void filter_spans(real centre, Window w, count patch, count size, Span *spans) {
    const real factor = -w.precision / (2 * LN2);
    for (count i = 0; i < patch; i++)
        spans[i] = support(filter(centre, w.stride, i, patch, size), factor, size);
}

/* The gradient of a window's numbers, from those of its filters and of log gamma; spans (2 N) are
those of the filters along x, then along y. */
static void window_backward(const Map *map, const real *numbers, Window w, const Span *spans,
                            const real *fx, const real *fy, const real *into_fx,
                            const real *into_fy, real into_intensity, real *into_numbers) {
    real back[3] = {0, 0, 0}, into[NUMBERS], norm = 0;
    filters_backward(w.x, w, map->patch, map->width, spans, fx, into_fx, back);
    into[0] = back[0] * (map->width + 1) / 2;
    filters_backward(w.y, w, map->patch, map->height, spans + map->patch, fy, into_fy, back);
    into[1] = back[0] * (map->height + 1) / 2;
    into[2] = back[1];
    into[3] = back[2];
    into[4] = into_intensity;
    for (int k = 0; k < NUMBERS; k++) {
        if (map->bounded) {
            real squashed = (real)tanh(numbers[k] / map->radius[k]);
            into[k] *= 1 - squashed * squashed;
        } else if (!(fabs(numbers[k]) <= map->limit[k])) {
            into[k] = 0;
        }
        norm += into[k] * into[k];
    }
    norm = (real)sqrt(norm);
    for (int k = 0; k < NUMBERS; k++)
        into_numbers[k] = map->clip && norm > map->clip ? into[k] * (map->clip / norm) : into[k];
}

/* --------------------------------------------------------------------------------------- pixels */

/* The means of Bernoulli pixels, whose logits a canvas holds; `size` of each, whole vectors. */
void bernoulli_forward(count size, const real *canvas, real *means) {
    for (count a = 0; a < size; a += LANES)
        store(means + a, LANES, sigmoid(load(canvas + a, LANES)));
}

/* Backward of bernoulli_forward: add the gradient of the canvas to into_canvas. */
void bernoulli_backward(count size, const real *means, const real *into_means, real *into_canvas) {
    for (count a = 0; a < size; a += LANES) {
        vec s = load(means + a, LANES), into = load(into_means + a, LANES);
        store(into_canvas + a, LANES, load(into_canvas + a, LANES) + into * s * (1 - s));
    }
}

/* log(x) for 1/2 <= x <= 2: twice the series of artanh((x - 1) / (x + 1)). */
INLINE vec log_(vec x) {
    vec z = (x - 1) / (x + 1), square = z * z, sum = {0};
    for (int k = sizeof(real) == 4 ? 15 : 35; k > 0; k -= 2)
        sum = sum * square + 2 / (real)k;
    return sum * z;
}

/* The means of logistic pixels that are cut off at 0 and 1 (Logistic in drawbench/likelihood.py):
s (softplus(m / s) - softplus((m - 1) / s)), with m = 1/2 + canvas / 4, for canvases (B, C, plane)
of whole vectors and log s (C). slopes keep their derivatives by the canvas, stretches by log s. */
void logistic_forward(count batch, count channels, count plane, const real *canvas,
                      const real *log_scales, real *means, real *slopes, real *stretches) {
    const vec one = (vec){0} + 1;
    for (count b = 0; b < batch * channels; b++) {
        const real s = (real)exp(log_scales[b % channels]);
        for (count at = b * plane; at < (b + 1) * plane; at += LANES) {
            vec low = (load(canvas + at, LANES) / 4 + (real)0.5) / s, high = low - 1 / s;
            vec small_low = exp_(pick(low < 0, low, -low)); /* exp(-|x|), which cannot overflow */
            vec small_high = exp_(pick(high < 0, high, -high));
            vec mean = pick(low > 0, low, (vec){0}) - pick(high > 0, high, (vec){0});
            mean = s * (mean + log_((1 + small_low) / (1 + small_high)));
            vec at_low = pick(low < 0, small_low, one) / (1 + small_low);
            vec at_high = pick(high < 0, small_high, one) / (1 + small_high);
            store(means + at, LANES,
                  pick(mean < 0, (vec){0}, pick(mean > 1, one, mean)));
            store(slopes + at, LANES, (at_low - at_high) / 4);
            store(stretches + at, LANES, mean - s * (low * at_low - high * at_high));
        }
    }
}

/* Backward of logistic_forward: add the gradients of the canvas to into_canvas, and of log s to
into_scales. */
void logistic_backward(count batch, count channels, count plane, const real *slopes,
                       const real *stretches, const real *into_means, real *into_canvas,
                       real *into_scales) {
    for (count b = 0; b < batch * channels; b++) {
        vec total = {0};
        for (count at = b * plane; at < (b + 1) * plane; at += LANES) {
            vec into = load(into_means + at, LANES);
            total += into * load(stretches + at, LANES);
            store(into_canvas + at, LANES,
                  load(into_canvas + at, LANES) + into * load(slopes + at, LANES));
        }
        into_scales[b % channels] += sum(total);
    }
}

/* -------------------------------------------------------------------------------------- reading */

/* Return an image as padded lines of reals: as it is, or from unpadded bytes, of which some lines
are converted in room. */
static const real *lines(const void *images, count bytes, count index, count height, count width,
                         Span part, real *room) {
    count p = padded(width);
    if (!bytes)
        return (const real *)images + index * height * p;
    const uint8_t *from = (const uint8_t *)images + (index * height + part.first) * width;
    real *to = room + part.first * p;
    for (count r = part.first; r < part.end; r++, from += width, to += p) {
        /* The compiler vectorizes this loop, but not __builtin_convertvector on bytes. */
        for (count a = 0; a < width; a++)
            to[a] = from[a];
        for (count a = width; a < p; a++)
            to[a] = 0;
    }
    return room;
}

/* Read through the windows given by numbers (B, 5): gamma F_Y x F_X^T into row, product (B, C N N).
With means (B, C, H, padded) of the pixels that a canvas stands for, row is (B, 2 C N N): what is
read of the image, then of the error image - means.

images (B, C, H, padded), or bytes (B, C, H, W), read as fractions of 255. Kept for the way back: fx
and fy (B, N, padded); across (B, pictures, C, N, padded), F_Y times each picture; patches (B,
pictures, C N N), gamma included. Return 0, or 1 without memory. */
int read_forward(const Map *map, count batch, count channels, const void *images, count bytes,
                 const real *means, const real *numbers, count numbers_stride, real *fx, real *fy,
                 real *across, real *patches, void *row, count row_stride, count rounded) {
    const count n = map->patch, p = padded(map->width), q = padded(map->height);
    const count plane = map->height * p, pictures = means ? 2 : 1;
    real *room = malloc(plane * sizeof(real) + n * sizeof(Span));
    if (!room)
        return 1;
    Span *spans = (Span *)(room + plane);
    for (count b = 0; b < batch;
         b++, fx += n * p, fy += n * q, patches += pictures * channels * n * n) {
        Window w = window(map, numbers + b * numbers_stride);
        filters(w.x, w, n, map->width, fx, spans);
        const Span part = vectors(spans, n);
        filters(w.y, w, n, map->height, fy, spans);
        const Span seen = joined(spans, n, 0);
        for (count c = 0; c < channels * pictures; c++, across += n * p) {
            count index = b * channels + c % channels;
            const real *picture = means + index * plane;
            if (c < channels)
                picture = lines(images, bytes, index, map->height, map->width, seen, room);
            times(n, map->height, p, part, fy, q, 1, spans, picture, across, 0);
            dots(n, n, p, part, across, fx, NULL, patches + c * n * n, n, 0);
        }
        const count size = channels * n * n;
        const real scale = bytes ? w.intensity / 255 : w.intensity;
        for (count k = 0; k < pictures * size; k += LANES)
            store(patches + k, pictures * size - k, load(patches + k, pictures * size - k) * scale);
        for (count k = 0; k < size; k += LANES) {
            vec image = load(patches + k, size - k);
            give(row, b * row_stride + k, size - k, rounded, image);
            if (means)
                give(row, b * row_stride + size + k, size - k, rounded,
                     image - load(patches + size + k, size - k));
        }
    }
    free(room);
    return 0;
}

/* Backward of read_forward, given into_row, product: the gradients of the numbers and of the means.
Return 0, or 1 without memory. */
int read_backward(const Map *map, count batch, count channels, const void *images, count bytes,
                  const real *means, const real *numbers, count numbers_stride, const real *fx,
                  const real *fy, const real *across, const real *patches, const void *into_row,
                  count row_stride, count rounded, real *into_means, real *into_numbers,
                  count into_stride) {
    const count n = map->patch, p = padded(map->width), q = padded(map->height),
                plane = map->height * p, size = channels * n * n;
    const count pictures = means ? 2 : 1, whole = padded(pictures * size);
    const count reals = plane + whole + 2 * n * p + n * q;
    real *room = malloc(reals * sizeof(real) + (2 * n + map->height) * sizeof(Span));
    if (!room)
        return 1;
    Span *spans = (Span *)(room + reals), *rows = spans + n;
    real *inner = room + plane, *columns = inner + whole, *into_fx = columns + n * p,
         *into_fy = into_fx + n * p;
    for (count b = 0; b < batch; b++, fx += n * p, fy += n * q, patches += pictures * size) {
        Window w = window(map, numbers + b * numbers_stride);
        const real scale = bytes ? w.intensity / 255 : w.intensity;
        vec intensity = {0};
        for (count k = 0; k < size; k += LANES) {
            vec image = take(into_row, b * row_stride + k, size - k, rounded);
            if (means) { /* from [image, image - means] to [image, means] */
                vec missing = take(into_row, b * row_stride + size + k, size - k, rounded);
                image += missing;
                intensity -= missing * load(patches + size + k, size - k);
                store(inner + size + k, size - k, -missing * scale);
            }
            intensity += image * load(patches + k, size - k);
            store(inner + k, size - k, image * scale);
        }
        memset(into_fy, 0, n * q * sizeof(real));
        filter_spans(w.x, w, n, map->width, spans);
        const Span part = vectors(spans, n);
        filter_spans(w.y, w, n, map->height, rows);
        const Span seen = joined(rows, n, 0);
        const Span *pixel = means ? spans_of_pixels(rows, n, map->height) : NULL;
        for (count c = 0; c < channels * pictures; c++, across += n * p) {
            count index = b * channels + c % channels;
            const real *picture = means + index * plane;
            if (c < channels)
                picture = lines(images, bytes, index, map->height, map->width, seen, room);
            const real *small = inner + c * n * n;
            times(n, n, p, part, small, n, 1, NULL, fx, columns, 0);
            times(n, n, p, part, small, 1, n, NULL, across, into_fx, c > 0);
            dots(n, map->height, p, part, columns, picture, rows, into_fy, q, 1);
            if (c >= channels) {
                real *into = into_means + index * plane;
                if (part.end - part.first < p)
                    memset(into, 0, plane * sizeof(real));
                times(map->height, n, p, part, fy, 1, q, pixel, columns, into, 0);
            }
        }
        window_backward(map, numbers + b * numbers_stride, w, spans, fx, fy, into_fx, into_fy,
                        sum(intensity), into_numbers + b * into_stride);
    }
    free(room);
    return 0;
}

/* -------------------------------------------------------------------------------- hard reading */

/* Crop squares around a place and shrink each to n x n numbers, means of whole pixels, as
drawbench/spatial.py does, to row, product (B, S C N N). first (S, B, 2) has each square's first
column and row; square s is n 2^s pixels wide; beyond its edge an image is 0. images as in
read_forward. Return 0, or 1 without memory. */
int crops_forward(count batch, count channels, count height, count width, const void *images,
                  count bytes, const int64_t *first, count n, count scales, void *row,
                  count row_stride, count rounded) {
    const count p = padded(width), size = scales * channels * n * n;
    real *line = malloc((width + size + height * p) * sizeof(real));
    if (!line)
        return 1;
    real *to = line + width, *room = to + size;
    const Span whole = {0, height};
    for (count b = 0; b < batch; b++) {
        for (count c = 0; c < channels; c++) {
            const real *pixels =
                lines(images, bytes, b * channels + c, height, width, whole, room);
            for (count s = 0; s < scales; s++) {
                const count box = (count)1 << s, side = n * box;
                const count x = first[(s * batch + b) * 2], y = first[(s * batch + b) * 2 + 1];
                const count left = x > 0 ? x : 0, right = x + side < width ? x + side : width;
                const real mean = 1 / (real)(box * box * (bytes ? 255 : 1));
                for (count i = 0; i < n; i++) {
                    const count top = y + i * box;
                    for (count a = left; a < right; a++)
                        line[a] = 0;
                    for (count r = top > 0 ? top : 0; r < top + box && r < height; r++)
                        for (count a = left; a < right; a++)
                            line[a] += pixels[r * p + a];
                    for (count j = 0; j < n; j++) {
                        const count begin = x + j * box, end = begin + box;
                        real total = 0;
                        for (count a = begin > left ? begin : left; a < end && a < right; a++)
                            total += line[a];
                        to[((s * channels + c) * n + i) * n + j] = total * mean;
                    }
                }
            }
        }
        for (count k = 0; k < size; k += LANES)
            give(row, b * row_stride + k, size - k, rounded, load(to + k, size - k));
    }
    free(line);
    return 0;
}

/* ------------------------------------------------------------------------------ affine reading */

/* Copy padded lines of an image between two lines of zeros on each side. Beyond its edge an image
is 0, so a sample that is clamped to those lines reads 0, with slope 0. */
static void framed(const real *from, count height, count width, real *to) {
    for (count r = 0; r < height; r++)
        memcpy(to + (r + 2) * (width + 4) + 2, from + r * padded(width), width * sizeof(real));
}

/* A place along an axis of `size` pixels, numbered from 0, from -1 to 1; one too far away to be a
number lies outside. */
INLINE real pixel_at(real place, count size) {
    real pixel = ((place + 1) * size - 1) / 2;
    return pixel > -2 ? (pixel < size ? pixel : size) : -2;
}

/* Read through affine maps theta (B, 6), as drawbench/spatial.py does: each of the C N N numbers is
the mean of s x s bilinear samples and goes to row, product. slopes (B, 6, C N N), or none, get
their derivatives by theta. images as in read_forward. Return 0, or 1 without memory. */
int affine_forward(count batch, count channels, count height, count width, const void *images,
                   count bytes, const real *theta, count n, count s, real *slopes, void *row,
                   count row_stride, count rounded) {
    const count side = n * s, line = width + 4, size = channels * n * n;
    const count frame = (height + 4) * line;
    real *picture = calloc(frame + 4 * side + size + height * padded(width), sizeof(real));
    if (!picture)
        return 1;
    real *at = picture + frame, *value = at + side, *by_x = value + side, *by_y = by_x + side,
         *patch = by_y + side, *room = patch + size;
    const Span whole = {0, height};
    const real mean = 1 / (real)(s * s * (bytes ? 255 : 1));
    const real scale[6] = {width / (real)2, width / (real)2, width / (real)2,
                           height / (real)2, height / (real)2, height / (real)2};
    for (count k = 0; k < side; k++)
        at[k] = (2 * k + 1) / (real)side - 1;
    for (count b = 0; b < batch; b++, theta += 6) {
        real *slope = slopes ? slopes + b * 6 * size : NULL;
        real broken = 0; /* becomes NaN if a number of the map is not finite, and stays so */
        for (int q = 0; q < 6; q++)
            broken += theta[q] - theta[q];
        for (count k = 0; k < size; k++)
            patch[k] = broken;
        for (count k = 0; slope && k < 6 * size; k++)
            slope[k] = broken;
        for (count c = 0; c < channels; c++) {
            framed(lines(images, bytes, b * channels + c, height, width, whole, room), height,
                   width, picture);
            for (count r = 0; r < side; r++) {
                const real x = theta[1] * at[r] + theta[2], y = theta[4] * at[r] + theta[5];
                for (count k = 0; k < side; k++) {
                    const real px = pixel_at(theta[0] * at[k] + x, width);
                    const real py = pixel_at(theta[3] * at[k] + y, height);
                    const real left = (real)floor(px), top = (real)floor(py);
                    const real right = px - left, down = py - top;
                    const real *corner = picture + ((integer)top + 2) * line + (integer)left + 2;
                    const real across = corner[1] - corner[0];
                    const real bend = corner[line + 1] - corner[line] - across;
                    by_x[k] = across + down * bend;
                    by_y[k] = corner[line] - corner[0] + right * bend;
                    value[k] = corner[0] + right * across + down * by_y[k];
                }
                const count first = (c * n + r / s) * n;
                for (count j = 0; j < n; j++) {
                    real sums[5] = {0};
                    for (count k = j * s; k < (j + 1) * s; k++) {
                        sums[0] += value[k];
                        sums[1] += by_x[k];
                        sums[2] += by_x[k] * at[k];
                        sums[3] += by_y[k];
                        sums[4] += by_y[k] * at[k];
                    }
                    patch[first + j] += sums[0];
                    if (!slope)
                        continue;
                    const real parts[6] = {sums[2], sums[1] * at[r], sums[1],
                                           sums[4], sums[3] * at[r], sums[3]};
                    for (int q = 0; q < 6; q++)
                        slope[q * size + first + j] += parts[q] * scale[q];
                }
            }
        }
        for (count k = 0; k < size; k += LANES)
            give(row, b * row_stride + k, size - k, rounded, load(patch + k, size - k) * mean);
        if (slope)
            for (count k = 0; k < 6 * size; k++)
                slope[k] *= mean;
    }
    free(picture);
    return 0;
}

/* Backward of affine_forward, given into_row, product (B, size): the gradient of theta (B, 6). */
void affine_backward(count batch, count size, const real *slopes, const void *into_row,
                     count row_stride, count rounded, real *into_theta) {
    for (count b = 0; b < batch; b++, into_theta += 6)
        for (int q = 0; q < 6; q++, slopes += size) {
            vec total = {0};
            for (count k = 0; k < size; k += LANES)
                total += take(into_row, b * row_stride + k, size - k, rounded) *
                         load(slopes + k, size - k);
            into_theta[q] = sum(total);
        }
}

/* -------------------------------------------------------------------------------------- writing */

/* Add F_Y^T w F_X / gamma to the canvas (B, C, H, padded), for patches w (B, C N N) and windows
given by numbers (B, 5); both are rows of one array. Kept for the way back: fx and fy (B, N,
padded), and across (B, C, N, padded), w F_X / gamma. Return 0, or 1 without memory. */
int write_forward(const Map *map, count batch, count channels, const real *patches,
                  const real *numbers, count stride, real *fx, real *fy, real *across,
                  real *canvas) {
    const count n = map->patch, p = padded(map->width), q = padded(map->height),
                plane = map->height * p;
    real *scaled = malloc(padded(n * n) * sizeof(real) + (n + map->height) * sizeof(Span));
    if (!scaled)
        return 1;
    Span *spans = (Span *)(scaled + padded(n * n));
    for (count b = 0; b < batch; b++, fx += n * p, fy += n * q) {
        Window w = window(map, numbers + b * stride);
        filters(w.x, w, n, map->width, fx, spans);
        const Span part = vectors(spans, n);
        filters(w.y, w, n, map->height, fy, spans);
        const Span *pixel = spans_of_pixels(spans, n, map->height);
        for (count c = 0; c < channels; c++, across += n * p, canvas += plane) {
            for (count k = 0; k < n * n; k++)
                scaled[k] = patches[b * stride + c * n * n + k] / w.intensity;
            times(n, n, p, part, scaled, n, 1, NULL, fx, across, 0);
            times(map->height, n, p, part, fy, 1, q, pixel, across, canvas, 1);
        }
    }
    free(scaled);
    return 0;
}

/* Backward of write_forward, given the gradient of the canvas: those of the patches and of the
numbers, rows of one array. Return 0, or 1 without memory. */
int write_backward(const Map *map, count batch, count channels, const real *patches,
                   const real *numbers, count stride, const real *fx, const real *fy,
                   const real *across, const real *into_canvas, real *into_patches,
                   real *into_numbers, count into_stride) {
    const count n = map->patch, p = padded(map->width), q = padded(map->height),
                plane = map->height * p;
    const count reals = padded(n * n) + 2 * n * p + n * q;
    real *room = malloc(reals * sizeof(real) + 2 * n * sizeof(Span));
    if (!room)
        return 1;
    Span *spans = (Span *)(room + reals), *rows = spans + n;
    real *down = room, *into_fx = down + n * p, *into_fy = into_fx + n * p,
         *scaled = into_fy + n * q;
    for (count b = 0; b < batch; b++, fx += n * p, fy += n * q) {
        Window w = window(map, numbers + b * stride);
        real intensity = 0;
        memset(into_fy, 0, n * q * sizeof(real));
        filter_spans(w.x, w, n, map->width, spans);
        const Span part = vectors(spans, n);
        filter_spans(w.y, w, n, map->height, rows);
        for (count c = 0; c < channels; c++, across += n * p, into_canvas += plane) {
            const real *patch = patches + b * stride + c * n * n;
            real *into_patch = into_patches + b * into_stride + c * n * n;
            times(n, map->height, p, part, fy, q, 1, rows, into_canvas, down, 0);
            dots(n, map->height, p, part, across, into_canvas, rows, into_fy, q, 1);
            dots(n, n, p, part, down, fx, NULL, into_patch, n, 0);
            for (count k = 0; k < n * n; k++) {
                scaled[k] = patch[k] / w.intensity;
                into_patch[k] /= w.intensity;
                intensity -= into_patch[k] * patch[k];
            }
            times(n, n, p, part, scaled, 1, n, NULL, down, into_fx, c > 0);
        }
        window_backward(map, numbers + b * stride, w, spans, fx, fy, into_fx, into_fy, intensity,
                        into_numbers + b * into_stride);
    }
    free(room);
    return 0;
}

/* -------------------------------------------------------------------------------------- the eye */

/* Two layers of 3x3 convolutions, of which the second has stride 2. Each is padded with zeros, so
maps here have a border one pixel wide: S = N + 2 is their side, M = (N + 1) / 2 that of the second
layer's output. F features come from the first layer and G from the second, both whole vectors.
What the second layer takes is laid out for a matrix product, as the columns (B M M, 9 F): the nine
neighbors of each of its outputs, row by row. */

enum { TAPS = 9 };

/* Copy a patch (C, N, N) into the middle of maps (C, S, S). */
static void bordered(count channels, count n, const real *patch, real *maps) {
    const count side = n + 2;
    memset(maps, 0, channels * side * side * sizeof(real));
    for (count c = 0; c < channels; c++)
        for (count y = 0; y < n; y++, patch += n)
            memcpy(maps + (c * side + y + 1) * side + 1, patch, n * sizeof(real));
}

/* relu(conv(patch) + bias), product (S, S, F) with its border. The weight is (C, 9, F). */
static void eye_layer(count channels, count n, count features, count rounded, const real *maps,
                      const real *weight, const real *bias, void *into) {
    const count side = n + 2;
    for (count y = 0; y < n; y++)
        for (count x = 0; x < n; x++)
            for (count f = 0; f < features; f += LANES) {
                vec total = load(bias + f, LANES);
                const real *from = maps + y * side + x, *taps = weight + f;
                for (count c = 0; c < channels; c++, from += side * side)
#pragma GCC unroll 9
                    for (int k = 0; k < TAPS; k++, taps += features)
                        total += from[k / 3 * side + k % 3] * load(taps, LANES);
                const count at = ((y + 1) * side + x + 1) * features + f;
                give(into, at, LANES, rounded, pick(total > 0, total, (vec){0}));
            }
}

/* The first layer, from patches (B, C N N) to columns, product (B M M, 9 F). Return 0, or 1 without
memory. */
int eye_forward(count batch, count channels, count n, count features, count rounded,
                const real *patches, const real *weight, const real *bias, void *columns) {
    const count side = n + 2, m = (n + 1) / 2, size = rounded ? sizeof(uint16_t) : sizeof(real);
    const count line = 3 * features * size; /* bytes: three neighbors in a row */
    real *maps = malloc(channels * side * side * sizeof(real));
    char *layer = calloc(side * side * features, size), *to = columns;
    for (count b = 0; maps && layer && b < batch; b++, patches += channels * n * n) {
        bordered(channels, n, patches, maps);
        eye_layer(channels, n, features, rounded, maps, weight, bias, layer);
        for (count i = 0; i < m; i++)
            for (count j = 0; j < m; j++)
                for (count k = 0; k < 3; k++, to += line)
                    memcpy(to, layer + ((2 * i + k) * side + 2 * j) * features * size, line);
    }
    const int failed = !maps || !layer;
    free(maps);
    free(layer);
    return failed;
}

/* relu(sums + bias) into row, product (B, M M G), from sums, product (B M M, G). */
void eye_answer(count batch, count places, count features, count rounded, const void *sums,
                const real *bias, void *row, count row_stride) {
    for (count b = 0; b < batch; b++)
        for (count place = 0; place < places; place++)
            for (count f = 0; f < features; f += LANES) {
                const count k = place * features + f;
                vec v = take(sums, b * places * features + k, LANES, rounded);
                v += load(bias + f, LANES);
                give(row, b * row_stride + k, LANES, rounded, pick(v > 0, v, (vec){0}));
            }
}

/* The gradient of the sums of eye_answer, product (B M M, G), from that of the row; that of the
bias is added to what is there. */
void eye_answer_backward(count batch, count places, count features, count rounded, const void *row,
                         count row_stride, const void *into_row, count into_stride, void *into_sums,
                         real *into_bias) {
    for (count b = 0; b < batch; b++)
        for (count place = 0; place < places; place++)
            for (count f = 0; f < features; f += LANES) {
                const count k = place * features + f;
                vec into = take(into_row, b * into_stride + k, LANES, rounded);
                mask lit = take(row, b * row_stride + k, LANES, rounded) > 0;
                into = pick(lit, into, (vec){0});
                give(into_sums, b * places * features + k, LANES, rounded, into);
                store(into_bias + f, LANES, load(into_bias + f, LANES) + into);
            }
}

/* The gradient of the first layer's sums, (S, S, F) with a border of zeros, from that of the
columns (M M, 9 F) of an image. */
static void eye_gather(count n, count features, count rounded, const void *columns,
                       const void *into_columns, count at, real *into_layer) {
    const count side = n + 2, m = (n + 1) / 2, line = 3 * features;
    memset(into_layer, 0, side * side * features * sizeof(real));
    for (count i = 0; i < m; i++)
        for (count j = 0; j < m; j++)
            for (count k = 0; k < 3; k++, at += line) {
                real *to = into_layer + ((2 * i + k) * side + 2 * j) * features;
                for (count f = 0; f < line; f += LANES) { /* the border of the columns is dark */
                    mask lit = take(columns, at + f, LANES, rounded) > 0;
                    vec into = take(into_columns, at + f, LANES, rounded);
                    store(to + f, LANES, load(to + f, LANES) + pick(lit, into, (vec){0}));
                }
            }
}

/* Add the gradients of the first layer's weight (C, 9, F) and bias, given that of its sums. */
static void eye_weight_backward(count channels, count n, count features, const real *maps,
                                const real *into_layer, real *into_weight, real *into_bias) {
    const count side = n + 2;
    for (count f = 0; f < features; f += LANES) {
        vec bias = load(into_bias + f, LANES);
        for (count c = 0; c < channels; c++) {
            real *to = into_weight + c * TAPS * features + f;
            vec total[TAPS] = {{0}};
            for (count y = 0; y < n; y++)
                for (count x = 0; x < n; x++) {
                    const real *from = maps + (c * side + y) * side + x;
                    vec into = load(into_layer + ((y + 1) * side + x + 1) * features + f, LANES);
                    bias += c ? (vec){0} : into;
#pragma GCC unroll 9
                    for (int k = 0; k < TAPS; k++)
                        total[k] += from[k / 3 * side + k % 3] * into;
                }
            for (int k = 0; k < TAPS; k++)
                store(to + k * features, LANES, load(to + k * features, LANES) + total[k]);
        }
        store(into_bias + f, LANES, bias);
    }
}

/* The gradient of a patch (C, N, N), given that of the first layer's sums. */
static void eye_patch_backward(count channels, count n, count features, const real *weight,
                               const real *into_layer, real *into_patch) {
    const count side = n + 2;
    for (count c = 0; c < channels; c++, weight += TAPS * features)
        for (count y = 0; y < n; y++)
            for (count x = 0; x < n; x++) {
                vec total = {0};
                for (count f = 0; f < features; f += LANES)
#pragma GCC unroll 9
                    for (int k = 0; k < TAPS; k++) {
                        const count place = (y + 2 - k / 3) * side + x + 2 - k % 3;
                        total += load(weight + k * features + f, LANES) *
                                 load(into_layer + place * features + f, LANES);
                    }
                *into_patch++ = sum(total);
            }
}

/* Backward of eye_forward, given the gradient of the columns: add those of weight and bias, and
that of the patch to into_row, product (B, C N N). Return 0, or 1 without memory. */
int eye_backward(count batch, count channels, count n, count features, count rounded,
                 const real *patches, const real *weight, const void *columns,
                 const void *into_columns, real *into_weight, real *into_bias, void *into_row,
                 count into_stride) {
    const count side = n + 2, m = (n + 1) / 2, plane = side * side, size = channels * n * n;
    real *into_layer = malloc((plane * (features + channels) + size) * sizeof(real));
    if (!into_layer)
        return 1;
    real *maps = into_layer + plane * features, *into_patch = maps + plane * channels;
    for (count b = 0; b < batch; b++, patches += size) {
        const count at = b * m * m * TAPS * features;
        eye_gather(n, features, rounded, columns, into_columns, at, into_layer);
        bordered(channels, n, patches, maps);
        eye_weight_backward(channels, n, features, maps, into_layer, into_weight, into_bias);
        eye_patch_backward(channels, n, features, weight, into_layer, into_patch);
        for (count k = 0; k < size; k += LANES) {
            vec into = take(into_row, b * into_stride + k, size - k, rounded);
            into += load(into_patch + k, size - k);
            give(into_row, b * into_stride + k, size - k, rounded, into);
        }
    }
    free(into_layer);
    return 0;
}

/* ---------------------------------------------------------------------------- without attention */

/* Put image - mean into row, product (B, C H W), for C H lines of width W. */
void error_forward(count batch, count all_lines, count width, const real *images,
                   const real *means, void *row, count row_stride, count rounded) {
    const count p = padded(width);
    for (count b = 0; b < batch; b++)
        for (count r = 0; r < all_lines; r++)
            for (count a = 0; a < width; a += LANES) {
                count at = (b * all_lines + r) * p + a;
                give(row, b * row_stride + r * width + a, width - a, rounded,
                     load(images + at, LANES) - load(means + at, LANES));
            }
}

/* Backward of error_forward: the gradient of the means. */
void error_backward(count batch, count all_lines, count width, const void *into_row,
                    count row_stride, count rounded, real *into_means) {
    const count p = padded(width);
    for (count b = 0; b < batch; b++)
        for (count r = 0; r < all_lines; r++)
            for (count a = 0; a < width; a += LANES)
                store(into_means + (b * all_lines + r) * p + a, LANES,
                      -take(into_row, b * row_stride + r * width + a, width - a, rounded));
}

/* Add a product (B, C H W) to the canvas (B, C, H, padded). */
void canvas_add(count batch, count all_lines, count width, const void *drawn, count rounded,
                real *canvas) {
    const count p = padded(width);
    for (count r = 0; r < batch * all_lines; r++)
        for (count a = 0; a < width; a += LANES)
            store(canvas + r * p + a, LANES,
                  load(canvas + r * p + a, LANES) + take(drawn, r * width + a, width - a, rounded));
}

/* A canvas (B, C, H, padded) as a product (B, C H W). */
void canvas_pack(count batch, count all_lines, count width, const real *canvas, count rounded,
                 void *to) {
    const count p = padded(width);
    for (count r = 0; r < batch * all_lines; r++)
        for (count a = 0; a < width; a += LANES)
            give(to, r * width + a, width - a, rounded, load(canvas + r * p + a, LANES));
}
