// Loads VE object files (.o) and shared objects into a process's memory.
//
// An object file is linked here, since no linker for VE is at hand: sections get addresses, symbols
// values, relocations are applied and a global offset table is made. What the file does not define
// comes from the simulator's own functions (host.h). Files are not trusted: each offset is checked.
#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

#include "host.h"
#include "machine.h"

namespace vesim {
namespace {

constexpr uint64_t kPage = Memory::kPageBytes;
constexpr uint16_t kMachineVE = 251;

// --- the format (System V ABI, 64 bits, little-endian) -------------------------------------------

struct Header {
  uint8_t ident[16];
  uint16_t type, machine;
  uint32_t version;
  uint64_t entry, phoff, shoff;
  uint32_t flags;
  uint16_t ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct Section {
  uint32_t name, type;
  uint64_t flags, addr, offset, size;
  uint32_t link, info;
  uint64_t addralign, entsize;
};
struct Segment {
  uint32_t type, flags;
  uint64_t offset, vaddr, paddr, filesz, memsz, align;
};
struct Symbol {
  uint32_t name;
  uint8_t info, other;
  uint16_t shndx;
  uint64_t value, size;
  unsigned type() const { return info & 15; }
  unsigned binding() const { return info >> 4; }
};
struct Rela {
  uint64_t offset, info;
  int64_t addend;
  uint32_t type() const { return static_cast<uint32_t>(info); }
  uint32_t symbol() const { return static_cast<uint32_t>(info >> 32); }
};
struct Dynamic {
  int64_t tag;
  uint64_t value;
};

enum : uint16_t { kRelocatable = 1, kShared = 3 };
enum : uint32_t { kSymbols = 2, kRelocations = 4, kNoBits = 8, kInitArray = 14 };
enum : uint64_t { kWritable = 1, kAllocated = 2, kExecutable = 4, kThreadLocal = 0x400 };
enum : uint16_t { kUndefined = 0, kAbsolute = 0xfff1, kCommon = 0xfff2 };
enum : unsigned { kLocal = 0, kWeak = 2, kFunction = 2, kTls = 6, kIndirect = 10 };
enum : uint32_t { kLoad = 1, kDynamic = 2, kTlsSegment = 7 };

// Names and numbers from LLVM's ELFRelocs/VE.def.
enum Relocation : uint32_t {
  kNone = 0, kRefLong, kRefQuad, kSrel32, kHi32, kLo32, kPcHi32, kPcLo32, kGot32, kGotHi32,
  kGotLo32, kGotOff32, kGotOffHi32, kGotOffLo32, kPlt32, kPltHi32, kPltLo32, kRelative, kGlobDat,
  kJumpSlot, kCopy, kDtpMod64 = 22, kDtpOff64, kTpOff64, kTlsGdHi32, kTlsGdLo32, kTpOffHi32 = 32,
  kTpOffLo32, kTpOff32, kCallHi32, kCallLo32
};

uint64_t round_up(uint64_t n, uint64_t to) { return to <= 1 ? n : (n + to - 1) / to * to; }

[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void fail(const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw std::runtime_error(text);
}

class File {
 public:
  File(const uint8_t* bytes, uint64_t size) : bytes_(bytes), size_(size) {}
  template <class T>
  T at(uint64_t offset) const {
    T value;
    std::memcpy(&value, range(offset, sizeof(T)), sizeof(T));
    return value;
  }
  const uint8_t* range(uint64_t offset, uint64_t n) const {
    if (offset > size_ || n > size_ - offset) {
      fail("the file ends at byte %" PRIu64 ", but bytes %" PRIu64 " to %" PRIu64 " are needed",
           size_, offset, offset + n);
    }
    return bytes_ + offset;
  }
  std::string text(uint64_t offset, uint64_t end) const {
    end = std::min(end, size_);
    if (offset >= end) fail("a name lies outside of its table");
    const auto* p = reinterpret_cast<const char*>(bytes_ + offset);
    return std::string(p, strnlen(p, end - offset));
  }

 private:
  const uint8_t* bytes_;
  uint64_t size_;
};

}  // namespace

// Both kinds of file end in the same way: values of symbols, relocations, names for messages.
class ElfLoader {
 public:
  ElfLoader(Memory& memory, const uint8_t* bytes, uint64_t size, const std::string& name,
            const Image::Others& others)
      : memory_(memory), file_(bytes, size), others_(others), image_(new Image(memory)) {
    image_->name_ = name;
  }

  std::unique_ptr<Image> load() {
    const auto header = file_.at<Header>(0);
    if (std::memcmp(header.ident, "\177ELF", 4) != 0) fail("it is not an ELF file");
    if (header.ident[4] != 2 || header.ident[5] != 1) fail("it is not 64-bit little-endian ELF");
    if (header.machine != kMachineVE) {
      fail("it is for ELF machine %u, not for NEC's VE (%u)", header.machine, kMachineVE);
    }
    for (unsigned n = 0; n < header.shnum; ++n) {
      sections_.push_back(file_.at<Section>(header.shoff + uint64_t{n} * header.shentsize));
    }
    if (header.type == kRelocatable) {
      load_relocatable();
    } else if (header.type == kShared) {
      for (unsigned n = 0; n < header.phnum; ++n) {
        segments_.push_back(file_.at<Segment>(header.phoff + uint64_t{n} * header.phentsize));
      }
      load_shared();
    } else {
      fail("it is neither an object file nor a shared object (ELF type %u)", header.type);
    }
    return std::move(image_);
  }

 private:
  // --- object files ------------------------------------------------------------------------------

  void load_relocatable() {
    const Section* table = nullptr;
    for (const Section& s : sections_) {
      if (s.type == kSymbols) table = &s;
    }
    if (table == nullptr) fail("it has no symbol table");
    for (uint64_t at = 0; at + sizeof(Symbol) <= table->size; at += sizeof(Symbol)) {
      symbols_.push_back(file_.at<Symbol>(table->offset + at));
    }
    if (table->link >= sections_.size()) fail("its symbol table has no names");
    names_ = &sections_[table->link];
    lay_out();
    for (uint32_t n = 0; n < symbols_.size(); ++n) define(n, table->info);
    report_undefined();
    name_unsized();
    for (const Section& s : sections_) {
      if (s.type != kRelocations || s.info >= sections_.size()) continue;
      if ((sections_[s.info].flags & kAllocated) == 0) continue;  // debug information
      for (uint64_t at = 0; at + sizeof(Rela) <= s.size; at += sizeof(Rela)) {
        relocate(file_.at<Rela>(s.offset + at), s.info);
      }
    }
    finish_got();
    for (unsigned n = 0; n < sections_.size(); ++n) {
      if (sections_[n].type != kInitArray) continue;
      for (uint64_t at = 0; at + 8 <= sections_[n].size; at += 8) {
        uint64_t function = 0;
        memory_.read(&function, address_[n] + at, 8);
        image_->initializers_.push_back(function);
      }
    }
    publish_thread_storage();
    protect(text_, text_bytes_, Memory::kRead | Memory::kExecute);
    protect(text_ + text_bytes_, constant_bytes_, Memory::kRead);
  }

  // Code, constants and variables each start on a page; the table of addresses (GOT) lies among the
  // variables, with room for each relocation that may want an entry.
  void lay_out() {
    address_.assign(sections_.size(), 0);
    uint64_t size[3] = {0, 0, 0}, align = kPage, entries = 1;
    const auto kind = [](const Section& s) {
      return (s.flags & kExecutable) != 0 ? 0 : (s.flags & kWritable) != 0 ? 2 : 1;
    };
    for (unsigned n = 0; n < sections_.size(); ++n) {
      const Section& s = sections_[n];
      if (s.type == kRelocations) entries += 2 * (s.size / sizeof(Rela));
      if ((s.flags & kAllocated) == 0) continue;
      if (s.size > memory_.bytes() || s.addralign > memory_.bytes()) {
        fail("section %u of %" PRIu64 " bytes does not fit into memory", n, s.size);
      }
      if ((s.flags & kThreadLocal) != 0) {
        thread_align_ = std::max(thread_align_, s.addralign);
        thread_bytes_ = round_up(thread_bytes_, s.addralign);
        address_[n] = thread_bytes_;
        thread_bytes_ += s.size;
        continue;
      }
      uint64_t& end = size[kind(s)];
      end = round_up(end, s.addralign);
      align = std::max(align, s.addralign);
      address_[n] = end;
      end += s.size;
    }
    for (Symbol& s : symbols_) {
      if (s.shndx != kCommon) continue;
      if (s.size > memory_.bytes() || s.value > memory_.bytes()) {
        fail("a common symbol of %" PRIu64 " bytes does not fit into memory", s.size);
      }
      align = std::max(align, s.value);
      size[2] = round_up(size[2], s.value);  // st_value is the alignment
      s.value = size[2];
      size[2] += s.size;
    }
    size[2] = round_up(size[2], 8);
    const uint64_t got = size[2];
    size[2] += 8 * entries;
    for (uint64_t& s : size) s = round_up(s, align);
    image_->bytes_ = size[0] + size[1] + size[2];
    image_->address_ = memory_.allocate_own(image_->bytes_, align);
    if (image_->address_ == 0) fail("no memory for %" PRIu64 " bytes", image_->bytes_);
    text_ = image_->address_;
    text_bytes_ = size[0];
    constant_bytes_ = size[1];
    const uint64_t base[3] = {text_, text_ + size[0], text_ + size[0] + size[1]};
    common_ = base[2];
    got_ = got_end_ = base[2] + got;
    make_thread_storage();
    for (unsigned n = 0; n < sections_.size(); ++n) {
      const Section& s = sections_[n];
      if ((s.flags & kAllocated) == 0) continue;
      const bool thread_local_ = (s.flags & kThreadLocal) != 0;
      address_[n] += thread_local_ ? thread_offset_ : base[kind(s)];
      if (s.type == kNoBits || s.size == 0) continue;
      const uint8_t* bytes = file_.range(s.offset, s.size);
      if (thread_local_) {
        uint8_t* image = thread_image_.data() + (address_[n] - thread_offset_);
        std::memcpy(image, bytes, s.size);
      } else {
        memory_.write(address_[n], bytes, s.size);
      }
    }
  }

  void define(uint32_t n, uint32_t first_global) {
    Symbol& s = symbols_[n];
    const std::string name = s.name == 0 ? "" : symbol_name(s);
    if (s.shndx == kUndefined) {
      s.value = name == "_GLOBAL_OFFSET_TABLE_" ? got_ : name.empty() ? 0 : outside(s, name);
      return;
    }
    if (s.shndx == kCommon) {
      s.value += common_;
    } else if (s.shndx != kAbsolute) {
      if (s.shndx >= sections_.size()) fail("symbol %s is in section %u of %zu", name.c_str(),
                                            s.shndx, sections_.size());
      s.value += address_[s.shndx];
    }
    publish(s, name, n >= first_global);
  }

  // --- shared objects ----------------------------------------------------------------------------

  void load_shared() {
    uint64_t low = ~uint64_t{0}, high = 0, align = kPage;
    for (const Segment& s : segments_) {
      if (s.type != kLoad || s.memsz == 0) continue;
      if (s.memsz > memory_.bytes() || s.vaddr > memory_.bytes() || s.filesz > s.memsz) {
        fail("a segment of %" PRIu64 " bytes at 0x%" PRIx64 " does not fit", s.memsz, s.vaddr);
      }
      low = std::min(low, s.vaddr / kPage * kPage);
      high = std::max(high, s.vaddr + s.memsz);
      if (s.align <= memory_.bytes() && (s.align & (s.align - 1)) == 0) {
        align = std::max(align, s.align);
      }
    }
    if (high == 0) fail("it has nothing to load");
    image_->bytes_ = high - low;
    image_->address_ = memory_.allocate_own(image_->bytes_, align);
    if (image_->address_ == 0) fail("no memory for %" PRIu64 " bytes", image_->bytes_);
    bias_ = image_->address_ - low;
    for (const Segment& s : segments_) {
      if (s.type == kLoad && s.filesz != 0) {
        memory_.write(bias_ + s.vaddr, file_.range(s.offset, s.filesz), s.filesz);
      } else if (s.type == kTlsSegment) {
        thread_bytes_ = s.memsz;
        thread_align_ = std::max<uint64_t>(s.align, 1);
        make_thread_storage();
      }
    }
    read_dynamic();
    report_undefined();
    name_unsized();
    for (const auto& table : {std::make_pair(rela_, rela_bytes_), {jumps_, jumps_bytes_}}) {
      for (uint64_t at = 0; at + sizeof(Rela) <= table.second; at += sizeof(Rela)) {
        relocate(loaded<Rela>(table.first + at), 0);
      }
    }
    for (const Segment& s : segments_) {  // with relocations in it
      if (s.type != kTlsSegment || s.memsz == 0) continue;
      const uint64_t bytes = std::min<uint64_t>(s.filesz, thread_image_.size());
      if (!memory_.read(thread_image_.data(), bias_ + s.vaddr, bytes)) {
        fail("its thread-local variables lie outside of its segments");
      }
    }
    publish_thread_storage();
    for (uint64_t at = 0; at + 8 <= initializers_bytes_; at += 8) {
      image_->initializers_.push_back(loaded<uint64_t>(initializers_ + at));
    }
    for (const Segment& s : segments_) {
      if (s.type != kLoad || s.memsz == 0) continue;
      const unsigned rights = (s.flags & 1) != 0   ? Memory::kRead | Memory::kExecute
                              : (s.flags & 2) != 0 ? Memory::kRead | Memory::kWrite
                                                   : Memory::kRead;
      protect(bias_ + s.vaddr, s.memsz, rights);
    }
  }

  template <class T>
  T loaded(uint64_t vaddr) const {
    T value;
    if (!memory_.read(&value, bias_ + vaddr, sizeof(T))) {
      fail("its tables lie outside of its segments (0x%" PRIx64 ")", vaddr);
    }
    return value;
  }

  void read_dynamic() {
    uint64_t symbols = 0, strings = 0, strings_bytes = 0, hash = 0;
    for (const Segment& s : segments_) {
      if (s.type != kDynamic) continue;
      for (uint64_t at = 0; at + sizeof(Dynamic) <= s.filesz; at += sizeof(Dynamic)) {
        const auto d = file_.at<Dynamic>(s.offset + at);
        switch (d.tag) {
          case 2: jumps_bytes_ = d.value; break;         // PLTRELSZ
          case 4: hash = d.value; break;                 // HASH
          case 5: strings = d.value; break;              // STRTAB
          case 6: symbols = d.value; break;              // SYMTAB
          case 7: rela_ = d.value; break;                // RELA
          case 8: rela_bytes_ = d.value; break;          // RELASZ
          case 12: image_->initializers_.push_back(bias_ + d.value); break;  // INIT
          case 10: strings_bytes = d.value; break;       // STRSZ
          case 23: jumps_ = d.value; break;              // JMPREL
          case 25: initializers_ = d.value; break;       // INIT_ARRAY
          case 27: initializers_bytes_ = d.value; break; // INIT_ARRAYSZ
        }
        if (d.tag == 0) break;
      }
    }
    // How many symbols there are only a hash table tells, or the section headers.
    uint64_t count = hash != 0 ? loaded<uint32_t>(hash + 4) : 0;
    for (const Section& s : sections_) {
      if (s.type == 11) count = std::max(count, s.size / sizeof(Symbol));  // DYNSYM
    }
    if (symbols == 0 || count == 0) fail("it has no dynamic symbols");
    for (uint64_t n = 0; n < count; ++n) {
      auto s = loaded<Symbol>(symbols + n * sizeof(Symbol));
      std::string name;
      for (uint64_t at = strings + s.name; s.name != 0 && at < strings + strings_bytes; ++at) {
        const char c = loaded<char>(at);
        if (c == 0) break;
        name += c;
      }
      if (s.shndx == kUndefined) {
        s.value = name.empty() ? 0 : outside(s, name);
      } else {
        if (s.type() == kTls) {
          s.value += thread_offset_;
        } else if (s.shndx != kAbsolute) {
          s.value += bias_;
        }
        publish(s, name, true);
      }
      symbols_.push_back(s);
    }
  }

  // --- symbols -----------------------------------------------------------------------------------

  std::string symbol_name(const Symbol& s) const {
    return file_.text(names_->offset + s.name, names_->offset + names_->size);
  }
  uint64_t outside(const Symbol& s, const std::string& name) {
    if (const uint64_t address = host_function(memory_, name)) return address;
    for (const auto& other : others_) {
      const uint64_t address = other->symbol(name);
      if (address == 0) continue;
      auto& needs = image_->needs_;
      if (std::find(needs.begin(), needs.end(), other) == needs.end()) needs.push_back(other);
      return address;
    }
    if (s.binding() != kWeak) undefined_.push_back(name);
    return 0;
  }
  void publish(const Symbol& s, const std::string& name, bool global) {
    if (s.type() == kIndirect) {
      fail("%s is chosen by a function when it is loaded (ifunc): that is not supported",
           name.c_str());
    }
    if (name.empty() || s.type() == kTls) return;
    if (global && s.binding() != kLocal) image_->symbols_[name] = s.value;
    if (s.size != 0) {
      memory_.name(s.value, s.size, name);
    } else if (s.type() == kFunction || (global && s.type() == 0)) {
      unsized_.emplace_back(s.value, name);
    }
    places_[s.value] |= s.size != 0;
  }
  // Symbols of assembly mostly have no size: each reaches to the next one, or to its page's end.
  void name_unsized() {
    for (const auto& [address, name] : unsized_) {
      if (places_[address]) continue;  // an empty function, and another one right behind it
      const auto next = places_.upper_bound(address);
      uint64_t end = (address | (kPage - 1)) + 1;
      if (next != places_.end()) end = std::min(next->first, end);
      memory_.name(address, end - address, name);
    }
  }
  void report_undefined() const {
    if (undefined_.empty()) return;
    std::string all;
    for (const std::string& name : undefined_) all += (all.empty() ? "" : ", ") + name;
    fail("undefined: %s. They are in no library that is loaded already, and of others the "
         "simulator has memcpy, strlen, new and the like, the compiler's run-time library and libm's "
         "scalar functions",
         all.substr(0, 300).c_str());
  }

  // --- relocations -------------------------------------------------------------------------------

  uint64_t got_entry(uint64_t value) {
    const auto found = got_entries_.find(value);
    if (found != got_entries_.end()) return found->second;
    const uint64_t at = got_end_;
    memory_.write(at, &value, 8);
    got_end_ += 8;
    got_entries_[value] = at;
    return at;
  }
  // A pair for __tls_get_addr: a module, of which there is one, and an offset.
  uint64_t tls_pair(uint64_t offset) {
    const auto found = tls_pairs_.find(offset);
    if (found != tls_pairs_.end()) return found->second;
    const uint64_t pair[2] = {1, offset}, at = got_end_;
    memory_.write(at, pair, sizeof pair);
    got_end_ += sizeof pair;
    tls_pairs_[offset] = at;
    return at;
  }
  void finish_got() { memory_.name(got_, got_end_ - got_ + 8, image_->name_ + ": GOT"); }

  void relocate(const Rela& r, uint32_t section) {
    if (r.symbol() >= symbols_.size()) fail("a relocation is for symbol %u of %zu", r.symbol(),
                                            symbols_.size());
    const Symbol& symbol = symbols_[r.symbol()];
    const uint64_t value = symbol.value + static_cast<uint64_t>(r.addend);
    const bool linked = !segments_.empty();
    if (!linked && r.offset > sections_[section].size) {
      fail("a relocation lies outside of its section");
    }
    const uint64_t place = linked ? bias_ + r.offset : address_[section] + r.offset;
    in_thread_image_ = !linked && (sections_[section].flags & kThreadLocal) != 0;
    // A linked file's own thread-local variables may be named by their offset alone.
    const uint64_t thread_value = value + (linked && r.symbol() == 0 ? thread_offset_ : 0);
    const uint64_t distance = value - place;
    switch (r.type()) {
      case kNone: return;
      case kRefLong: return put32(place, r, value, value == static_cast<uint32_t>(value));
      case kRefQuad: case kGlobDat: case kJumpSlot: return put64(place, value);
      case kRelative: return put64(place, bias_ + static_cast<uint64_t>(r.addend));
      case kSrel32: case kPlt32:
        return put32(place, r, distance,
                     distance == static_cast<uint64_t>(static_cast<int32_t>(distance)));
      case kHi32: case kCallHi32: return put32(place, r, value >> 32);
      case kLo32: case kCallLo32: return put32(place, r, value);
      // The simulator's functions are as near as any other: calls need no linkage table.
      case kPcHi32: case kPltHi32: return put32(place, r, distance >> 32);
      case kPcLo32: case kPltLo32: return put32(place, r, distance);
      case kGot32: case kGotLo32: return put32(place, r, got_entry(value) - got_);
      case kGotHi32: return put32(place, r, (got_entry(value) - got_) >> 32);
      case kGotOff32: case kGotOffLo32: return put32(place, r, value - got_);
      case kGotOffHi32: return put32(place, r, (value - got_) >> 32);
      case kTlsGdHi32: return put32(place, r, (tls_pair(symbol.value) + r.addend - place) >> 32);
      case kTlsGdLo32: return put32(place, r, tls_pair(symbol.value) + r.addend - place);
      case kDtpMod64: return put64(place, 1);
      case kDtpOff64: return put64(place, thread_value);
      case kTpOff64: return put64(place, kThreadStorageOffset + thread_value);
      case kTpOff32: case kTpOffLo32: return put32(place, r, kThreadStorageOffset + value);
      case kTpOffHi32: return put32(place, r, (kThreadStorageOffset + value) >> 32);
      default: fail("relocation type %u at 0x%" PRIx64 " is not supported", r.type(), r.offset);
    }
  }
  void put32(uint64_t place, const Rela& r, uint64_t value, bool fits = true) {
    if (!fits) fail("relocation type %u at 0x%" PRIx64 ": 0x%" PRIx64 " does not fit into 32 bits",
                    r.type(), r.offset, value);
    const auto word = static_cast<uint32_t>(value);
    put(place, &word, sizeof word);
  }
  void put64(uint64_t place, uint64_t value) { put(place, &value, sizeof value); }
  void put(uint64_t place, const void* bytes, uint64_t n) {
    if (in_thread_image_) {
      const uint64_t at = place - thread_offset_;
      if (at > thread_image_.size() || n > thread_image_.size() - at) {
        fail("a relocation lies outside of the thread-local variables");
      }
      std::memcpy(thread_image_.data() + at, bytes, n);
      return;
    }
    if (place - image_->address_ > image_->bytes_ || !memory_.write(place, bytes, n)) {
      fail("a relocation lies outside of the image");
    }
  }

  // --- thread-local memory -----------------------------------------------------------------------

  // Takes a place in every core's thread-local memory, the first that is free.
  void make_thread_storage() {
    if (thread_bytes_ == 0) return;
    if (thread_align_ > kPage || (thread_align_ & (thread_align_ - 1)) != 0) {
      fail("its thread-local variables ask for multiples of %" PRIu64, thread_align_);
    }
    const auto behind = [this](uint64_t offset) {
      return round_up(kThreadStorageOffset + offset, thread_align_) - kThreadStorageOffset;
    };
    std::lock_guard<std::mutex> hold(memory_.process);
    auto next = memory_.thread_storage.begin();
    thread_offset_ = behind(0);
    for (; next != memory_.thread_storage.end(); ++next) {
      if (thread_offset_ <= next->offset && thread_bytes_ <= next->offset - thread_offset_) break;
      thread_offset_ = behind(next->offset + next->bytes);
    }
    if (thread_bytes_ > kThreadStorageBytes ||
        thread_offset_ > kThreadStorageBytes - thread_bytes_) {
      fail("its thread-local variables take %" PRIu64 " bytes, and all together may take %" PRIu64,
           thread_bytes_, kThreadStorageBytes);
    }
    memory_.thread_storage.insert(next, {thread_offset_, thread_bytes_, {}, 0});
    image_->has_thread_storage_ = true;
    image_->thread_offset_ = thread_offset_;
    thread_image_.assign(thread_bytes_, 0);
  }
  void publish_thread_storage() {
    if (!image_->has_thread_storage_) return;
    std::lock_guard<std::mutex> hold(memory_.process);
    for (Memory::ThreadStorage& t : memory_.thread_storage) {
      if (t.offset != thread_offset_) continue;
      t.image = std::move(thread_image_);
      t.serial = ++memory_.thread_serial;
    }
  }

  void protect(uint64_t address, uint64_t bytes, unsigned rights) {
    if (bytes != 0) memory_.protect(address, bytes, rights);
  }

  Memory& memory_;
  File file_;
  const Image::Others& others_;
  std::unique_ptr<Image> image_;
  std::vector<Section> sections_;
  std::vector<Segment> segments_;
  std::vector<Symbol> symbols_;       // with st_value replaced by the address
  const Section* names_ = nullptr;
  std::vector<uint64_t> address_;     // of sections
  std::vector<std::string> undefined_;
  std::vector<std::pair<uint64_t, std::string>> unsized_;  // symbols of which the size is not given
  std::map<uint64_t, bool> places_;  // of all symbols, and whether one there has a size
  uint64_t text_ = 0, text_bytes_ = 0, constant_bytes_ = 0, common_ = 0, bias_ = 0;
  uint64_t got_ = 0, got_end_ = 0;
  std::map<uint64_t, uint64_t> got_entries_, tls_pairs_;  // value -> address of the entry
  uint64_t rela_ = 0, rela_bytes_ = 0, jumps_ = 0, jumps_bytes_ = 0;
  uint64_t initializers_ = 0, initializers_bytes_ = 0;
  uint64_t thread_offset_ = 0, thread_bytes_ = 0, thread_align_ = 1;
  std::vector<uint8_t> thread_image_;
  bool in_thread_image_ = false;      // what the current relocation changes
};

std::unique_ptr<Image> Image::load(Memory& memory, const void* bytes, size_t size,
                                   const std::string& name, const Others& others,
                                   std::string& error) {
  try {
    return ElfLoader(memory, static_cast<const uint8_t*>(bytes), size, name, others).load();
  } catch (const std::exception& e) {
    error = "cannot load " + name + ": " + e.what();
    return nullptr;
  }
}

std::unique_ptr<Image> Image::load(Memory& memory, const std::string& path, const Others& others,
                                   std::string& error) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    error = "cannot read " + path + ": " + std::strerror(errno);
    return nullptr;
  }
  const std::vector<char> bytes{std::istreambuf_iterator<char>(file),
                                std::istreambuf_iterator<char>()};
  return load(memory, bytes.data(), bytes.size(), path, others, error);
}

Image::~Image() {
  if (has_thread_storage_) {
    std::lock_guard<std::mutex> hold(memory_.process);
    auto& all = memory_.thread_storage;
    all.erase(std::find_if(all.begin(), all.end(), [this](const Memory::ThreadStorage& t) {
      return t.offset == thread_offset_;
    }));
  }
  if (address_ == 0) return;
  memory_.forget_names(address_, bytes_);
  memory_.release_own(address_);
}

uint64_t Image::symbol(const std::string& name) const {
  const auto found = symbols_.find(name);
  return found == symbols_.end() ? 0 : found->second;
}

std::vector<std::string> Image::symbols() const {
  std::vector<std::string> names;
  for (const auto& s : symbols_) names.push_back(s.first);
  return names;
}

}  // namespace vesim
