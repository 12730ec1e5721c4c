#include "core/dist/socket_communicator.h"

#include <unistd.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "core/dist/frame.h"
#include "gtest/gtest.h"
#include "tests/core/dist/ranks.h"
#include "tests/testing/status_matchers.h"

namespace esper::dist {
namespace {

using ::esper::testing::RankResult;
using ::esper::testing::RunProcesses;
using ::esper::testing::RunRanks;
using ::esper::testing::StatusIs;

constexpr absl::Duration kShort = absl::Milliseconds(800);
constexpr absl::Duration kLong = absl::Seconds(20);

// All ranks ended by themselves within `limit` and said the same.
void ExpectSame(const std::vector<RankResult>& results,
                const std::string& expected, absl::Duration limit) {
  for (size_t rank = 0; rank < results.size(); ++rank) {
    EXPECT_EQ(results[rank].exit_status, 0) << rank;
    EXPECT_EQ(results[rank].said, expected) << rank;
    EXPECT_LT(results[rank].took, limit) << rank;
  }
}

TEST(LoopbackCommunicatorTest, IsAGroupOfOne) {
  LoopbackCommunicator group;
  EXPECT_EQ(group.rank(), 0);
  EXPECT_EQ(group.size(), 1);
  EXPECT_EQ(group.Broadcast(0, "a").value(), "a");
  EXPECT_EQ(group.AllGather("b").value(), std::vector<std::string>{"b"});
  EXPECT_OK(group.Barrier());
  EXPECT_THAT(group.Broadcast(1, "a"),
              StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(SocketCommunicatorTest, AGroupOfOneNeedsNoPeer) {
  SocketCommunicator::Options options;
  auto group = SocketCommunicator::CreatePairs(options).value();
  ASSERT_EQ(group.size(), 1);
  EXPECT_EQ(group[0]->Broadcast(0, "a").value(), "a");
  EXPECT_EQ(group[0]->AllGather("b").value(), std::vector<std::string>{"b"});
  EXPECT_OK(group[0]->Barrier());
}

TEST(SocketCommunicatorTest, GathersAndBroadcastsFromEveryRank) {
  const auto results = RunRanks(3, kLong, [](Communicator& group) {
    std::vector<std::string> said;
    for (int round = 0; round < 50; ++round) {
      const auto all =
          group.AllGather(std::string(group.rank() * round, 'x')).value();
      std::vector<size_t> lengths;
      for (const std::string& part : all) lengths.push_back(part.size());
      const std::string from =
          group.Broadcast(round % 3, absl::StrCat("r", group.rank())).value();
      if (!group.Barrier().ok()) return std::string("barrier");
      if (round > 47) {
        said.push_back(absl::StrCat(absl::StrJoin(lengths, ","), from));
      }
    }
    return absl::StrJoin(said, " ");
  });
  ExpectSame(results, "0,48,96r0 0,49,98r1", kLong);
}

TEST(SocketCommunicatorTest, CarriesMoreThanASocketBuffers) {
  const auto results = RunRanks(2, kLong, [](Communicator& group) {
    const std::string mine(8 << 20, static_cast<char>('a' + group.rank()));
    const auto all = group.AllGather(mine).value();
    return absl::StrCat(all[0] == std::string(8 << 20, 'a'),
                        all[1] == std::string(8 << 20, 'b'));
  });
  ExpectSame(results, "11", kLong);
}

TEST(SocketCommunicatorTest, ALateRankFailsAllInTimeWithTheSameWords) {
  const auto results = RunRanks(3, kShort, [](Communicator& group) {
    if (group.rank() == 1) absl::SleepFor(kShort * 0.9);
    return group.Barrier().ToString();
  });
  ExpectSame(results,
             "DEADLINE_EXCEEDED: Waited in vain for rank 1 of the group.",
             kShort * 3);
}

TEST(SocketCommunicatorTest, AnAbsentHubIsMissed) {
  const auto results = RunRanks(3, kShort, [](Communicator& group) {
    if (group.rank() == 0) absl::SleepFor(kShort * 1.5);
    return std::string(group.Barrier().message());
  });
  ExpectSame(results, "Waited in vain for rank 0 of the group.", kShort * 3);
}

TEST(SocketCommunicatorTest, ALostRankFailsAllAtOnce) {
  for (int lost = 0; lost < 3; ++lost) {
    const auto results = RunRanks(3, kLong, [=](Communicator& group) {
      if (!group.Barrier().ok()) return std::string("first barrier");
      if (group.rank() == lost) _exit(7);
      const absl::Status status = group.Barrier();
      if (group.AllGather("").status() != status) {
        return std::string("A broken group works.");
      }
      return status.ToString();
    });
    for (int rank = 0; rank < 3; ++rank) {
      EXPECT_LT(results[rank].took, kLong * 0.5);
      if (rank == lost) continue;
      EXPECT_EQ(results[rank].said,
                absl::StrCat("UNAVAILABLE: Rank ", lost,
                             " is gone: it closed its connection."));
    }
  }
}

TEST(SocketCommunicatorTest, DifferentCallsFailAll) {
  const auto results = RunRanks(3, kLong, [](Communicator& group) {
    return group.rank() == 2 ? group.Broadcast(1, "").status().ToString()
                             : group.Barrier().ToString();
  });
  ExpectSame(results,
             "FAILED_PRECONDITION: Ranks made different calls: rank 0 call 0, "
             "Barrier(0); rank 2 call 0, Broadcast(1).",
             kLong * 0.5);
}

TEST(SocketCommunicatorTest, DifferentRootsFailAll) {
  const auto results = RunRanks(2, kLong, [](Communicator& group) {
    return std::string(group.Broadcast(group.rank(), "").status().message());
  });
  ExpectSame(results,
             "Ranks made different calls: rank 0 call 0, Broadcast(0); rank 1 "
             "call 0, Broadcast(1).",
             kLong * 0.5);
}

TEST(SocketCommunicatorTest, AMessageOverTheLimitFailsAll) {
  SocketCommunicator::Options options;
  options.size = 2;
  options.max_message_bytes = 10;
  auto group = SocketCommunicator::CreatePairs(options).value();
  const auto results = RunProcesses(2, [&](int rank) {
    const auto mine = std::move(group[rank]);
    group.clear();
    return mine->AllGather(std::string(10 + rank, 'x')).status().ToString();
  });
  ExpectSame(results,
             "INVALID_ARGUMENT: Rank 1 sends 11 bytes; the group's limit is "
             "10.",
             kLong);
}

class RendezvousTest : public ::testing::Test {
 protected:
  RendezvousTest() {
    char directory[] = "/tmp/esper_ranksXXXXXX";
    if (mkdtemp(directory) == nullptr) std::abort();
    directory_ = directory;
  }
  ~RendezvousTest() override {
    unlink(path().c_str());
    rmdir(directory_.c_str());
  }
  std::string path() const { return directory_ + "/group"; }

  std::string directory_;
};

SocketCommunicator::Options RankOf(int rank, int size,
                                   absl::Duration timeout = kLong) {
  SocketCommunicator::Options options;
  options.rank = rank;
  options.size = size;
  options.timeout = timeout;
  return options;
}

TEST_F(RendezvousTest, RanksMeetInAnyOrder) {
  const auto results = RunProcesses(3, [&](int rank) {
    if (rank == 0) absl::SleepFor(absl::Milliseconds(60));
    auto group = SocketCommunicator::Join(path(), RankOf(rank, 3)).value();
    return absl::StrJoin(group->AllGather(absl::StrCat(rank)).value(), "");
  });
  ExpectSame(results, "012", kLong);
  EXPECT_NE(access(path().c_str(), F_OK), 0);  // Nothing is left behind.
}

TEST_F(RendezvousTest, RanksThatDoNotFitAreTurnedAway) {
  const auto results = RunProcesses(2, [&](int rank) {
    return std::string(absl::StatusCodeToString(
        SocketCommunicator::Join(path(), RankOf(rank, 2 + rank))
            .status()
            .code()));
  });
  EXPECT_EQ(results[0].said, "FAILED_PRECONDITION");
  EXPECT_EQ(results[1].said, "UNAVAILABLE");
}

TEST_F(RendezvousTest, AMissingRankIsNamedInTime) {
  EXPECT_THAT(SocketCommunicator::Join(path(), RankOf(0, 2, kShort)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
  EXPECT_THAT(SocketCommunicator::Join(path(), RankOf(1, 2, kShort)),
              StatusIs(absl::StatusCode::kDeadlineExceeded));
}

TEST_F(RendezvousTest, RefusesTakenAndImpossiblePaths) {
  EXPECT_THAT(SocketCommunicator::Join(directory_, RankOf(0, 2)),
              StatusIs(absl::StatusCode::kAlreadyExists));
  EXPECT_THAT(SocketCommunicator::Join(std::string(200, 'x'), RankOf(0, 2)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SocketCommunicator::Join(path(), RankOf(2, 2)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(SocketCommunicator::Join(path(), RankOf(0, 0)),
              StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(
      SocketCommunicator::Join(path(), RankOf(0, 1, absl::ZeroDuration())),
      StatusIs(absl::StatusCode::kInvalidArgument));
}

TEST(FrameTest, HeadersSurvive) {
  FrameHeader header;
  header.kind = FrameKind::kAllGather;
  header.rank = 0x01020304;
  header.argument = 0x05060708;
  header.sequence = 0x1112131415161718;
  header.length = 77;
  const std::string bytes = EncodeFrameHeader(header);
  ASSERT_EQ(bytes.size(), kFrameHeaderBytes);
  EXPECT_EQ(bytes.substr(0, 4), "ESPD");
  EXPECT_EQ(bytes[8], 4);  // Little-endian.
  const FrameHeader back = DecodeFrameHeader(bytes.data(), 77).value();
  EXPECT_EQ(back.kind, header.kind);
  EXPECT_EQ(back.rank, header.rank);
  EXPECT_EQ(back.argument, header.argument);
  EXPECT_EQ(back.sequence, header.sequence);
  EXPECT_EQ(back.length, header.length);
  EXPECT_THAT(DecodeFrameHeader(bytes.data(), 76),
              StatusIs(absl::StatusCode::kDataLoss));
  header.kind = FrameKind::kAbort;  // May say why in any case.
  EXPECT_OK(DecodeFrameHeader(EncodeFrameHeader(header).data(), 0));
  header.length = kMaxAbortBytes + 1;
  EXPECT_THAT(DecodeFrameHeader(EncodeFrameHeader(header).data(), 0),
              StatusIs(absl::StatusCode::kDataLoss));
  for (const int damaged : {0, 4, 6}) {  // Magic, version, kind.
    std::string copy = bytes;
    copy[damaged] = 99;
    EXPECT_THAT(DecodeFrameHeader(copy.data(), 77),
                StatusIs(absl::StatusCode::kDataLoss));
  }
}

TEST(FrameTest, TextsSurviveAndTruncationIsNoticed) {
  const std::vector<std::string> parts = {"", "ab", std::string(300, 'x')};
  const std::string bytes = PackTexts(parts);
  EXPECT_EQ(UnpackTexts(bytes).value(), parts);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_THAT(UnpackTexts(bytes.substr(0, length)),
                StatusIs(absl::StatusCode::kDataLoss));
  }
  EXPECT_THAT(UnpackTexts(bytes + "x"), StatusIs(absl::StatusCode::kDataLoss));
}

TEST(FrameTest, NumbersSurvive) {
  ByteWriter writer;
  writer.U8(200);
  writer.U32(3000000000u);
  writer.U64(~uint64_t{0});
  writer.F64(-0.1);
  writer.Raw("raw");
  ByteReader reader(writer.bytes());
  EXPECT_EQ(reader.U8(), 200);
  EXPECT_EQ(reader.U32(), 3000000000u);
  EXPECT_EQ(reader.U64(), ~uint64_t{0});
  EXPECT_EQ(reader.F64(), -0.1);
  EXPECT_EQ(reader.Raw(3), "raw");
  EXPECT_TRUE(reader.done());
  EXPECT_EQ(reader.U8(), 0);
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace esper::dist
