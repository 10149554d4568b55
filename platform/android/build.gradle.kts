// The Android library, as an app includes it. Builds the native library through the repository's CMakeLists.txt with the NDK.
// README.md says where CMake looks for its dependencies.
plugins {
    id("com.android.library") version "8.7.3"
    kotlin("android") version "2.2.21"
}

android {
    namespace = "dev.lethe"
    compileSdk = 35
    ndkVersion = "28.0.13004108" // links for pages of 16 KiB by itself

    defaultConfig {
        minSdk = 28
        consumerProguardFiles("consumer-rules.pro")
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild {
            cmake {
                arguments += listOf(
                    "-DANDROID_STL=c++_static",
                    "-DANDROID_SUPPORT_FLEXIBLE_PAGE_SIZES=ON",
                    "-DLETHE_TOOLS=OFF",
                    "-DLETHE_TESTS=OFF",
                )
                targets += "lethe_jni"
            }
        }
    }
    externalNativeBuild { cmake { path = file("../../CMakeLists.txt") } }
    sourceSets {
        getByName("main") {
            java.setSrcDirs(listOf("src/main/java"))
            kotlin.setSrcDirs(listOf("src/main/kotlin", "src/android/kotlin"))
        }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
    kotlinOptions { jvmTarget = "11" }
}

dependencies {
    api("org.jetbrains.kotlinx:kotlinx-coroutines-android:1.10.2")
}
