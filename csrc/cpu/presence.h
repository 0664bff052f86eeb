// Which points of a masked set have which features, and an order in which points with the same features are neighbors.
#pragma once
#include "simd.h"
#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <utility>
#include <vector>

namespace MMP_ISA {

// Rows whose squares are computed together.
constexpr int rows_at_once = 8;

// Points that have the same features, at the places first .. end-1; those of a `mixed` run have any. The places from
// `end` up to `last` hold no point, so that a block of rows or a register of columns never has points of two runs.
struct Run {
    std::int64_t first, end, last;
    bool mixed;
};

// The features that the points of two runs have in common, ascending, and the factor that scales a square to all.
struct Common {
    const std::int32_t* features;
    std::int64_t size;
    double factor;
};

// The places of the points of a masked set, run by run. Points of a run ascend. A pattern, which is a set of features,
// has a run if enough points have it. The points of all other patterns are in the last run, which is mixed.
class Presence {
    static constexpr std::int64_t place_step = std::max(rows_at_once, lanes<float>), most_patterns = 128;
    typedef std::uint64_t Word;
    struct Pattern {
        const Word* words;
        std::int64_t size, run;
    };
    std::vector<Word> words;              // [n][n_words], a bit for each feature of a point
    std::vector<Pattern> patterns;        // in the order of their first points
    std::vector<std::int32_t> common_of;  // [runs][runs][p]
    std::vector<std::int64_t> n_common;   // [runs][runs]
    std::int64_t n_words = 0, p = 0;

    // Patterns whose runs would be short would waste places and time.
    static bool has_run(std::int64_t size, std::int64_t n) { return size >= 64 || 4 * size >= n; }

    void read(const double* points, std::int64_t n) {
        words.assign(n * n_words, 0);
        for (std::int64_t i = 0; i < n; ++i)
            for (std::int64_t f = 0; f < p; ++f)
                words[i * n_words + f / 64] |= (Word)(points[i * p + f] == points[i * p + f]) << f % 64;
    }

    // Puts the number of its pattern into run_at for every point; -1 if another pattern has the same hash.
    void find_patterns(std::int64_t n) {
        std::unordered_map<Word, std::int32_t> by_hash;
        patterns.clear();
        run_at.resize(n);
        for (std::int64_t i = 0; i < n; ++i) {
            const Word* mine = words.data() + i * n_words;
            const auto equals = [&](std::int32_t a) {
                return a >= 0 && !std::memcmp(mine, patterns[a].words, n_words * sizeof(Word));
            };
            std::int32_t pattern = i > 0 && equals(run_at[i - 1]) ? run_at[i - 1] : -1;
            if (pattern < 0) {
                Word hash = 0;
                for (std::int64_t w = 0; w < n_words; ++w) hash = (hash ^ mine[w] ^ hash >> 29) * 0x9e3779b97f4a7c15u;
                const auto at = by_hash.emplace(hash, (std::int32_t)patterns.size());
                if (at.second) patterns.push_back({mine, 0, -1});
                if (equals(at.first->second)) pattern = at.first->second;
            }
            run_at[i] = pattern;
            if (pattern >= 0) ++patterns[pattern].size;
        }
    }

    void add_run(std::int64_t size, bool mixed) {
        const std::int64_t first = runs.empty() ? 0 : runs.back().last;
        runs.push_back({first, first + size, first + ceil_to(size, place_step), mixed});
    }

    void find_common() {
        const std::int64_t n_runs = (std::int64_t)runs.size();
        common_of.resize(n_runs * n_runs * p), n_common.assign(n_runs * n_runs, 0);
        for (const Pattern& a : patterns)
            for (const Pattern& b : patterns) {
                if (a.run < 0 || b.run < 0) continue;
                const std::int64_t pair = a.run * n_runs + b.run;
                for (std::int64_t f = 0; f < p; ++f)
                    if ((a.words[f / 64] & b.words[f / 64]) >> f % 64 & 1)
                        common_of[pair * p + n_common[pair]++] = (std::int32_t)f;
            }
    }

  public:
    std::vector<Run> runs;
    std::vector<std::int32_t> point_at, place_of;  // the point at a place, -1 if there is none; the place of a point
    std::vector<std::int32_t> run_at;              // the run of a place

    void arrange(const double* points, std::int64_t n, std::int64_t n_features) {
        p = n_features, n_words = (p + 63) / 64;
        read(points, n);
        find_patterns(n);
        runs.clear();
        std::int64_t n_mixed = n;
        for (Pattern& pattern : patterns)
            if (has_run(pattern.size, n) && (std::int64_t)runs.size() < most_patterns) {
                pattern.run = (std::int64_t)runs.size(), n_mixed -= pattern.size;
                add_run(pattern.size, false);
            }
        if (n_mixed > 0) add_run(n_mixed, true);
        std::vector<std::int64_t> next;
        for (const Run& run : runs) next.push_back(run.first);
        place_of.resize(n), point_at.assign(runs.back().last, -1);
        for (std::int64_t i = 0; i < n; ++i) {
            const std::int64_t own = run_at[i] < 0 ? -1 : patterns[run_at[i]].run;
            place_of[i] = (std::int32_t)(own < 0 ? next.back()++ : next[own]++);
            point_at[place_of[i]] = (std::int32_t)i;
        }
        run_at.resize(runs.back().last);
        for (std::size_t r = 0; r < runs.size(); ++r)
            std::fill(run_at.begin() + runs[r].first, run_at.begin() + runs[r].last, (std::int32_t)r);
        find_common();
    }

    // Of two runs that are not mixed.
    Common common(std::int64_t a, std::int64_t b) const {
        const std::int64_t pair = a * (std::int64_t)runs.size() + b;
        return {common_of.data() + pair * p, n_common[pair], (double)p / (double)n_common[pair]};
    }
};

}  // namespace MMP_ISA
