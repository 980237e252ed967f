// Two pretended CUDA devices and a pretended MPS one, for a torch that was built without any: it finds a guard (what the
// current device and its streams are) and hooks (how many devices there are) in its registries, and asks no more.
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/detail/MPSHooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

namespace {

constexpr c10::DeviceIndex kCount = 2;
bool is_mac = false;  // a machine has one kind of devices

template <c10::DeviceType T>
struct Guard final : public c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = T;
  static thread_local c10::DeviceIndex current;
  static thread_local c10::StreamId streams[kCount];

  explicit Guard(c10::DeviceType = T) {}
  c10::DeviceType type() const override { return T; }
  c10::Device getDevice() const override { return {T, current}; }
  void uncheckedSetDevice(c10::Device device) const noexcept override { current = device.index(); }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() >= 0 && device.index() < kCount, "invalid device ordinal");
    current = device.index();
  }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device former = getDevice();
    if (device.has_index()) setDevice(device);
    return former;
  }
  c10::Stream getStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, streams[device.index()]);
  }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::UNSAFE, device, 0);
  }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream former = getStream(stream.device());
    streams[stream.device_index()] = stream.id();
    return former;
  }
  c10::DeviceIndex deviceCount() const noexcept override { return T == c10::DeviceType::CUDA ? kCount : 1; }
  // Everything runs at once and in order, so there is nothing to wait for.
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
};

template <c10::DeviceType T>
thread_local c10::DeviceIndex Guard<T>::current = 0;
template <c10::DeviceType T>
thread_local c10::StreamId Guard<T>::streams[kCount] = {0, 0};

using CudaGuard = Guard<c10::DeviceType::CUDA>;
using MpsGuard = Guard<c10::DeviceType::MPS>;
C10_REGISTER_GUARD_IMPL(CUDA, CudaGuard)
C10_REGISTER_GUARD_IMPL(MPS, MpsGuard)

struct Hooks final : public at::CUDAHooksInterface {
  explicit Hooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return !is_mac; }
  bool isAvailable() const override { return !is_mac; }
  bool hasCUDA() const override { return !is_mac; }
  int getNumGPUs() const override { return kCount; }
  c10::DeviceIndex deviceCount() const override { return kCount; }
  c10::DeviceIndex current_device() const override { return CudaGuard::current; }
  c10::DeviceIndex getCurrentDevice() const override { return CudaGuard::current; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

struct MacHooks final : public at::MPSHooksInterface {
  void init() const override {}
  bool isBuilt() const override { return is_mac; }
  bool isAvailable() const override { return is_mac; }
  bool hasMPS() const override { return is_mac; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
};

}  // namespace

extern "C" void become_mac() { is_mac = true; }

namespace at {
C10_REGISTER_TYPED_CLASS(CUDAHooksRegistry, "CUDAHooks", Hooks)
C10_REGISTER_TYPED_CLASS(MPSHooksRegistry, "MPSHooks", MacHooks)
}  // namespace at
