// A simulated NPU in host memory (a PrivateUse1 device of torch), for tests on hosts without an NPU.
//
// Every operator runs the CPU's kernel on the device's memory, so results equal the CPU's to the bit. This tells nothing
// about a real NPU's numerics, speed, memory formats or missing operators. It shows whether a program keeps its tensors on
// one device, when it synchronizes with the host, and whether its steps can be captured in a graph: operators, copies and
// synchronizations are counted, and capture refuses what a real one refuses.

#include <ATen/EmptyTensor.h>
#include <ATen/autocast_mode.h>
#include <ATen/core/stack.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/_to_copy_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/clone_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/library.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace {

using at::IValue;
using at::Tensor;
using c10::Device;
using c10::DeviceIndex;
using c10::OperatorHandle;
using c10::Storage;
using c10::Stream;
using torch::jit::Stack;

constexpr auto NPU = c10::DeviceType::PrivateUse1;
const c10::DispatchKeySet NPU_KEYS(c10::DispatchKey::PrivateUse1);

// State ---------------------------------------------------------------------------------------------------------------

int device_count = 1;
thread_local DeviceIndex current_device = 0;
thread_local std::map<DeviceIndex, c10::StreamId> current_stream;
c10::StreamId streams_made = 0;
int64_t bytes_in_use = 0, most_bytes_in_use = 0;
std::map<std::string, int64_t> counts;  // of operators by name, of copies and of synchronizations

// The graph being captured, or none. Capture computes nothing: operators run on copies of memory allocated before it (to
// find the output shapes), and memory allocated during it has no defined values at its end.
struct Graph {
  std::vector<std::function<void()>> tape;
  std::vector<Storage> born;
  std::set<void*> born_identities;
};
Graph* capturing = nullptr;

void note_birth(const Storage& storage) {
  if (capturing && capturing->born_identities.insert(storage.unsafeGetStorageImpl()).second)
    capturing->born.push_back(storage);
}

bool is_born_in_capture(const Tensor& tensor) {
  return capturing->born_identities.count(tensor.storage().unsafeGetStorageImpl()) > 0;
}

void refuse_in_capture(const std::string& what) {
  TORCH_CHECK(!capturing, what, " is not permitted while a graph is being captured");
}

// A process forked after the first use cannot use the device, as with a real NPU.
void use_device() {
  static const pid_t process = getpid();
  TORCH_CHECK(process == getpid(), "Cannot re-initialize NPU in forked subprocess. To use NPU with multiprocessing, "
                                   "you must use the 'spawn' start method");
}

// Memory --------------------------------------------------------------------------------------------------------------

void count_bytes(int64_t bytes) {
  bytes_in_use += bytes;
  most_bytes_in_use = std::max(most_bytes_in_use, bytes_in_use);
}

struct Memory final : c10::Allocator {
  struct Block {
    void* address;
    size_t bytes;
  };

  static void free_block(void* context) {
    auto* block = static_cast<Block*>(context);
    count_bytes(-static_cast<int64_t>(block->bytes));
    std::free(block->address);
    delete block;
  }

  c10::DataPtr allocate(size_t bytes) override {
    use_device();
    void* address = nullptr;
    TORCH_CHECK(posix_memalign(&address, 64, std::max<size_t>(bytes, 1)) == 0, "NPU out of memory");
    std::memset(address, 0xff, bytes);  // NaN, so that reading what was never written shows
    count_bytes(bytes);
    return {address, new Block{address, bytes}, &free_block, Device(NPU, current_device)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;
REGISTER_ALLOCATOR(NPU, &memory);

// Devices and streams; all operations are synchronous -------------------------------------------------------------------

struct Guard final : c10::impl::DeviceGuardImplInterface {
  static DeviceIndex index(Device device) { return device.index() < 0 ? current_device : device.index(); }
  static void synchronize() {
    refuse_in_capture("synchronization");
    counts["synchronize"]++;
  }

  c10::DeviceType type() const override { return NPU; }
  DeviceIndex deviceCount() const noexcept override { return device_count; }
  Device getDevice() const override { return {NPU, current_device}; }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.index() < device_count, "invalid npu device index ", int(device.index()));
    current_device = index(device);
  }
  void uncheckedSetDevice(Device device) const noexcept override { current_device = index(device); }
  Device exchangeDevice(Device device) const override {
    auto before = getDevice();
    setDevice(device);
    return before;
  }
  Stream make_stream(Device device, c10::StreamId id) const {
    return Stream(Stream::UNSAFE, Device(NPU, index(device)), id);
  }
  Stream getStream(Device device) const override { return make_stream(device, current_stream[index(device)]); }
  Stream getDefaultStream(Device device) const override { return make_stream(device, 0); }
  Stream getNewStream(Device device, int = 0) const override { return make_stream(device, ++streams_made); }
  Stream getStreamFromGlobalPool(Device device, bool = false) const override { return getNewStream(device); }
  Stream exchangeStream(Stream stream) const override {
    auto before = getStream(stream.device());
    current_stream[stream.device_index()] = stream.id();
    return before;
  }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override { synchronize(); }
  void synchronizeDevice(DeviceIndex) const override { synchronize(); }
  // An event counts its queries: the first one returns false, as if the work were not finished.
  void record(void** event, const Stream&, DeviceIndex, c10::EventFlag) const override {
    refuse_in_capture("recording an event");
    if (!*event) *event = new int;
    *static_cast<int*>(*event) = 0;
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void* event) const override { return (*static_cast<int*>(event))++ > 0; }
  void destroyEvent(void* event, DeviceIndex) const noexcept override { delete static_cast<int*>(event); }
};
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

struct Hooks final : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return device_count > 0; }
  void init() const override { use_device(); }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return device_count; }
  DeviceIndex getCurrentDevice() const override { return current_device; }
  void setCurrentDevice(DeviceIndex device) const override { Guard().setDevice({NPU, device}); }
  DeviceIndex exchangeDevice(DeviceIndex device) const override { return Guard().exchangeDevice({NPU, device}).index(); }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return exchangeDevice(device); }
  at::Device getDeviceFromPtr(void*) const override { return {NPU, current_device}; }
};

// One memory, two names ------------------------------------------------------------------------------------------------
//
// ATen's cpu_fallback copies arguments to the CPU and results back, and loses what a kernel writes into an argument that its
// schema does not mark as mutable: BN's running statistics would never change although every loss is correct. So here the
// CPU's kernel works on the memory of the device's tensor itself.

Storage rename_storage(const Tensor& tensor, Device device, c10::Allocator* allocator) {
  auto release = [](void* context) { delete static_cast<Storage*>(context); };
  c10::DataPtr address(tensor.storage().mutable_data(), new Storage(tensor.storage()), release, device);
  return Storage(Storage::use_byte_size_t(), tensor.storage().nbytes(), std::move(address), allocator, true);
}

Tensor on_host(const Tensor& tensor) {
  auto storage = rename_storage(tensor, c10::kCPU, c10::GetAllocator(c10::kCPU));
  auto result = at::empty({0}, tensor.options().device(c10::kCPU).requires_grad(false));
  return result.set_(storage, tensor.storage_offset(), tensor.sizes(), tensor.strides());
}

Tensor on_device(const Tensor& tensor, Device device) {
  auto storage = rename_storage(tensor, device, &memory);
  auto result = at::detail::make_tensor<c10::TensorImpl>(Storage(storage), NPU_KEYS, tensor.dtype());
  result.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides(), tensor.storage_offset());
  note_birth(result.storage());
  return result;
}

// Replace every tensor in an argument or result of an operator.
IValue replace_tensors(const IValue& value, const std::function<Tensor(const Tensor&)>& replace) {
  if (value.isTensor()) return value.toTensor().defined() ? IValue(replace(value.toTensor())) : value;
  if (value.isTensorList()) {
    c10::List<Tensor> replaced;
    for (const Tensor& tensor : value.toTensorVector()) replaced.push_back(replace(tensor));
    return replaced;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> replaced;
    for (const std::optional<Tensor>& tensor : value.toOptionalTensorList().vec())
      replaced.push_back(tensor && tensor->defined() ? std::optional<Tensor>(replace(*tensor)) : tensor);
    return replaced;
  }
  return value;
}

// The device tensors of one call and the host tensors on the same memory.
struct Pairs {
  Device device{NPU, -1};
  std::vector<std::pair<Tensor, Tensor>> host_and_device;

  Tensor to_host(const Tensor& tensor) {
    if (!tensor.is_privateuseone()) {
      TORCH_CHECK(tensor.dim() == 0, "Expected all tensors to be on the same device, but found at least two devices, npu "
                                     "and cpu!");
      return tensor;
    }
    TORCH_CHECK(device.index() < 0 || device == tensor.device(), "Expected all tensors to be on the same device, but found "
                "at least two devices, ", device, " and ", tensor.device(), "!");
    device = tensor.device();
    host_and_device.emplace_back(on_host(tensor), tensor);
    return host_and_device.back().first;
  }

  // Return the device's own tensor if the kernel wrote into it (an out= argument may be resized), else a new one.
  Tensor to_device(const Tensor& result) {
    for (auto& [host, own] : host_and_device) {
      if (!host.is_same(result)) continue;
      if (host.sizes() != own.sizes()) {
        auto* implementation = own.unsafeGetTensorImpl();
        implementation->set_storage_keep_dtype(on_device(host, device).storage());
        implementation->set_sizes_and_strides(host.sizes(), host.strides());
      }
      return own;
    }
    return on_device(result, device);
  }

  // Replace every tensor that a capture must not modify by a copy.
  Tensor protect(const Tensor& tensor) {
    for (auto& [host, own] : host_and_device) {
      if (!host.is_same(tensor)) continue;
      if (!is_born_in_capture(own)) host = tensor.clone();
      return host;
    }
    return tensor;
  }
};

// Operators ------------------------------------------------------------------------------------------------------------

void call_kernel(const OperatorHandle& op, Stack& stack) {
  at::AutoDispatchBelowADInplaceOrView no_autograd;
  c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
  op.callBoxed(stack);
}

// A replay runs the same kernel on the same memory.
std::function<void()> record(const OperatorHandle& op, const Stack& arguments, const std::vector<Tensor>& results) {
  return [op, arguments, results] {
    Stack stack(arguments);
    call_kernel(op, stack);
    auto target = results.begin();
    auto fill = [&](const Tensor& tensor) {
      if (tensor.data_ptr() != target->data_ptr()) target->copy_(tensor);
      ++target;
      return tensor;
    };
    for (const auto& value : stack) replace_tensors(value, fill);
  };
}

void run(const OperatorHandle& op, Stack* stack) {
  use_device();
  const auto& schema = op.schema();
  const auto& overload = schema.overload_name();
  counts[schema.name() + (overload.empty() ? "" : "." + overload)]++;

  Pairs pairs;
  Stack host_arguments;
  for (IValue& value : torch::jit::pop(*stack, schema.arguments().size())) {
    const auto& name = schema.arguments()[host_arguments.size()].name();
    // Random numbers differ between devices: a program with the same results everywhere must not draw them here.
    TORCH_CHECK(name != "generator", schema.name(), ": the stand-in draws no random numbers");
    if (value.isDevice()) pairs.device = value.toDevice(), value = Device(c10::kCPU);
    host_arguments.push_back(replace_tensors(value, [&](const Tensor& tensor) { return pairs.to_host(tensor); }));
  }
  if (pairs.device.index() < 0) pairs.device = {NPU, current_device};

  Stack working = host_arguments;
  if (capturing)
    for (auto& value : working) value = replace_tensors(value, [&](const Tensor& tensor) { return pairs.protect(tensor); });
  call_kernel(op, working);

  std::vector<Tensor> results;
  for (const auto& value : working) {
    if (!value.isTensor() && !value.isTensorList()) refuse_in_capture(schema.name() + ", whose result is the host's,");
    stack->push_back(replace_tensors(value, [&](const Tensor& tensor) {
      auto result = pairs.to_device(tensor);
      results.push_back(on_host(result));
      return result;
    }));
  }
  if (capturing) capturing->tape.push_back(record(op, host_arguments, results));
}

bool has_data_dependent_shape(const OperatorHandle& op, const Stack& stack) {
  if (!op.hasTag(at::Tag::dynamic_output_shape)) return false;
  if (op.schema().name() != "aten::index") return true;
  auto indices = stack.back().toOptionalTensorList().vec();  // positions are harmless, masks are not
  return std::any_of(indices.begin(), indices.end(), [](const std::optional<Tensor>& index) {
    return index && index->defined() && index->scalar_type() == at::kBool;
  });
}

void run_any(const OperatorHandle& op, Stack* stack) {
  const auto& schema = op.schema();
  if (has_data_dependent_shape(op, *stack)) refuse_in_capture(schema.name() + ", whose shape depends on data,");
  for (const auto& result : schema.returns())
    TORCH_CHECK(!result.alias_info() || result.alias_info()->isWrite(), schema.name(), " is a view: the stand-in lacks it");
  run(op, stack);
}

// Convolutions have their own operator names on PrivateUse1 devices.
void run_convolution(const OperatorHandle&, Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution", "");
  run(op, stack);
}

void run_convolution_backward(const OperatorHandle& called, Stack* stack) {
  static const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("aten::convolution_backward", "");
  auto first = stack->end() - called.schema().arguments().size();
  auto weight = (first + 2)->toTensor();
  stack->insert(first + 3, IValue(std::vector<int64_t>{weight.size(0)}));  // the sizes of a bias
  run(op, stack);
}

// Kernels on memory ------------------------------------------------------------------------------------------------------

using MemoryFormat = std::optional<at::MemoryFormat>;
using Layout = std::optional<at::Layout>;
using DType = std::optional<at::ScalarType>;
using Where = std::optional<Device>;
using Flag = std::optional<bool>;

c10::DeviceGuard choose_device(Where device) {
  return c10::DeviceGuard(device && device->has_index() ? *device : Device(NPU, current_device));
}

Tensor empty(c10::SymIntArrayRef size, DType dtype, Layout, Where device, Flag, MemoryFormat format) {
  TORCH_CHECK(!format || *format == at::MemoryFormat::Contiguous,
              "Only c10::MemoryFormat::Contiguous is supported for creating a npu tensor");
  auto guard = choose_device(device);
  auto scalar_type = c10::dtype_or_default(dtype);
  auto result = at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &memory, NPU_KEYS, scalar_type, format);
  note_birth(result.storage());
  return result;
}

Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, DType dtype, Layout, Where device, Flag) {
  auto guard = choose_device(device);
  auto result = at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &memory,
                                                  NPU_KEYS, c10::dtype_or_default(dtype));
  note_birth(result.storage());
  return result;
}

// torch_npu does not support channels_last; these are its error messages.
void check_format(MemoryFormat format, const char* words) {
  TORCH_CHECK(!format || *format == at::MemoryFormat::Contiguous || *format == at::MemoryFormat::Preserve, words);
}

Tensor to_copy(const Tensor& tensor, DType dtype, Layout layout, Where device, Flag pin, bool non_blocking, MemoryFormat f) {
  check_format(f, "Only contiguous_format or preserve_format is supported.");
  return at::native::_to_copy(tensor, dtype, layout, device, pin, non_blocking, f);
}

Tensor clone(const Tensor& tensor, MemoryFormat format) {
  check_format(format, "NPU contiguous operator only supported contiguous memory format.");
  return at::native::clone(tensor, format);
}

Tensor copy_from(const Tensor& from, const Tensor& to, bool) {
  use_device();
  if (from.is_cpu()) refuse_in_capture("a copy from pageable host memory");
  if (to.is_cpu()) refuse_in_capture("a copy to pageable host memory");
  counts[from.is_cpu() ? "copy to device" : to.is_cpu() ? "copy to host" : "copy on device"]++;
  auto source = from.is_cpu() ? from : on_host(from), target = to.is_cpu() ? to : on_host(to);
  if (!capturing || is_born_in_capture(to)) target.copy_(source);
  if (capturing) capturing->tape.push_back([source, target] { target.copy_(source); });
  return to;
}

Tensor copy_from_and_resize(const Tensor& from, const Tensor& to) {
  to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar read_scalar(const Tensor& tensor) {
  refuse_in_capture("item()");
  counts["read by host"]++;
  return at::_local_scalar_dense(on_host(tensor));
}

const Tensor& resize(const Tensor& tensor, c10::SymIntArrayRef size, MemoryFormat) {
  auto* implementation = tensor.unsafeGetTensorImpl();
  implementation->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  auto bytes = at::detail::computeStorageNbytesContiguous(tensor.sizes(), tensor.element_size(), tensor.storage_offset());
  if (bytes > tensor.storage().nbytes()) {
    auto grown = memory.allocate(bytes);
    std::memcpy(grown.get(), tensor.storage().data(), tensor.storage().nbytes());
    tensor.storage().set_data_ptr_noswap(std::move(grown));
    tensor.storage().set_nbytes(bytes);
  }
  return tensor;
}

Tensor view(const Tensor& tensor, c10::SymIntArrayRef size) {
  return at::native::view(tensor, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor as_strided(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride, std::optional<c10::SymInt> at) {
  auto offset = at ? std::optional<int64_t>(at->guard_int(__FILE__, __LINE__)) : std::nullopt;
  return at::native::as_strided_tensorimpl(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), offset);
}

Tensor reshape_alias(const Tensor& tensor, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(tensor, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

Tensor& set_storage(Tensor& tensor, Storage storage, c10::SymInt offset, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  auto* implementation = tensor.unsafeGetTensorImpl();
  implementation->set_storage_keep_dtype(std::move(storage));
  implementation->set_sizes_and_strides(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                        offset.guard_int(__FILE__, __LINE__));
  return tensor;
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_any>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("_to_copy", to_copy);
  library.impl("clone", clone);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
  library.impl("_local_scalar_dense", read_scalar);
  library.impl("resize_", resize);
  library.impl("view", view);
  library.impl("as_strided", as_strided);
  library.impl("_reshape_alias", reshape_alias);
  library.impl("unfold", TORCH_FN(at::native::unfold));
  library.impl("set_.source_Storage_storage_offset", set_storage);
  // The foreach operators of torch_npu that take one kernel and are used here; _foreach_mul.Tensor is not one of them.
  for (auto name : {"_foreach_add.List", "_foreach_add_.List", "_foreach_sub_.List", "_foreach_mul.List", "_foreach_mul.Scalar",
                    "_foreach_mul_.Scalar"})
    library.impl(name, torch::CppFunction::makeFromBoxedFunction<&run_any>());
  library.impl("convolution_overrideable", torch::CppFunction::makeFromBoxedFunction<&run_convolution>());
  library.impl("convolution_backward_overrideable", torch::CppFunction::makeFromBoxedFunction<&run_convolution_backward>());
}

// Autocast on an NPU follows CUDA's lists; these are the operators used here.
TORCH_LIBRARY_IMPL(_, AutocastPrivateUse1, library) { library.fallback(torch::CppFunction::makeFallthrough()); }

TORCH_LIBRARY_IMPL(aten, AutocastPrivateUse1, m) {  // the macros want this name
  KERNEL_PRIVATEUSEONE(conv2d, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(linear, lower_precision_fp)
  KERNEL_PRIVATEUSEONE(cross_entropy_loss, fp32)
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  static Hooks hooks;
  at::RegisterPrivateUse1HooksInterface(&hooks);
  module.def("set_device_count", [](int count) { device_count = count; });
  module.def("device_count", [] { return device_count; });
  module.def("counts", [] { return counts; });
  module.def("reset_counts", [] { counts.clear(); });
  module.def("most_bytes_in_use", [] { return most_bytes_in_use; });
  module.def("forget_most_bytes", [] { most_bytes_in_use = bytes_in_use; });
  module.def("synchronize", &Guard::synchronize);
  module.def("is_capturing", [] { return capturing != nullptr; });
  pybind11::class_<Graph>(module, "Graph")
      .def(pybind11::init<>())
      .def("begin", [](Graph& graph) { capturing = &graph; })
      .def("end", [](Graph& graph) {
        capturing = nullptr;
        for (auto& storage : graph.born) std::memset(storage.mutable_data(), 0xff, storage.nbytes());
        graph.born.clear(), graph.born_identities.clear();
      })
      .def("replay", [](Graph& graph) { for (auto& kernel : graph.tape) kernel(); });
}
